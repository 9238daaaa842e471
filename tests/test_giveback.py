"""Merged memory given back in stages: on the model, whose guests pass for libvirt's domains."""

from dataclasses import replace

import pytest

from ksmtuned_py.backends.memory import MemoryBackend
from ksmtuned_py.errors import NoRoom, Unreadable
from ksmtuned_py.giveback import NotSwitched, give_back_all, give_back_guest, switch_and_wait
from ksmtuned_py.host import Host
from ksmtuned_py.machine import small_model
from ksmtuned_py.model import Guest, Knobs, Memory
from ksmtuned_py.restore import settle
from ksmtuned_py.units import GIB, MIB


class Domains(MemoryBackend):
    """The model, with guests that are domains and memory that a test may make short."""

    available_bytes: int | None = None
    room_bytes: int | None = None

    def guests(self, now_seconds: float = 0.0) -> tuple[Guest, ...]:
        """Each has a limit of its own, perhaps."""
        return tuple(
            replace(guest, libvirt_age_seconds=0.0, room_bytes=self.room_bytes) for guest in super().guests(now_seconds)
        )

    def memory(self) -> Memory:
        """As the model says, or less."""
        memory = super().memory()
        if self.available_bytes is None:
            return memory
        return replace(memory, available_bytes=self.available_bytes, swap_free_bytes=0)


class Stage:
    """A host with two guests that have merged, and who was switched."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.switched: list[tuple[str, bool]] = []
        self.said: list[str] = []
        self.failing: tuple[str, ...] = ()
        self.domains = Domains(small_model(2, 64 * MIB), lambda: self.seconds)
        self.host = Host(self.domains, self.domains)
        settle(self.host, Knobs(run=1, pages_to_scan=2000, sleep_millisecs=20))
        self.seconds += 4.0
        assert self.host.observe().saved_bytes > 16 * MIB

    def switch(self, guest: Guest, merge: bool) -> str:
        if guest.name in self.failing:
            raise Unreadable("monitor", "no")
        self.switched.append((guest.name, merge))
        return "read back"


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_all_is_given_back_guest_by_guest_and_ksmd_is_stopped(stage: Stage) -> None:
    give_back_all(stage.host, stage.switch, stage.said.append)
    assert sorted(stage.switched) == [("model-1", False), ("model-2", False)]
    assert stage.host.observe().saved_bytes == 0
    assert stage.host.backend.knobs().run == 0
    assert any("to give back" in sentence for sentence in stage.said)


def test_a_guest_that_cannot_be_emptied_is_left_to_the_last_stage(stage: Stage) -> None:
    stage.failing = ("model-1",)
    give_back_all(stage.host, stage.switch, stage.said.append)
    assert stage.switched == [("model-2", False)]
    assert any("left to the last stage: guest model-1" in said for said in stage.said)
    assert stage.host.observe().saved_bytes == 0


def test_without_room_nothing_is_given_back(stage: Stage) -> None:
    stage.domains.available_bytes = 0
    merged = stage.host.observe().saved_bytes
    with pytest.raises(NoRoom):
        give_back_all(stage.host, stage.switch, stage.said.append)
    assert stage.switched == []
    assert stage.host.observe().saved_bytes == merged


def test_one_guest_needs_room_under_its_own_limit(stage: Stage) -> None:
    stage.domains.room_bytes = 1
    guest = stage.host.observe().guests[0]
    with pytest.raises(NotSwitched, match=r"memory\.max"):
        give_back_guest(stage.host, guest, stage.switch, stage.said.append)
    stage.domains.room_bytes = GIB
    assert give_back_guest(stage.host, guest, stage.switch, stage.said.append) > MIB
    assert stage.switched == [(guest.name, False)]


def test_a_guest_that_ended_is_not_switched(stage: Stage) -> None:
    gone = replace(stage.host.observe().guests[0], pid=1)
    with pytest.raises(NotSwitched, match="is gone"):
        give_back_guest(stage.host, gone, stage.switch, stage.said.append)


def test_what_the_monitor_refuses_is_an_error(stage: Stage) -> None:
    guest = stage.host.observe().guests[0]
    stage.failing = (guest.name,)
    with pytest.raises(NotSwitched, match=guest.name):
        switch_and_wait(guest, True, stage.switch, 4096, stage.said.append)
