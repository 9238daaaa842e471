"""Switching guests as the rules want it: one at a time, with room, and never on the tick."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ksmtuned_py.enforce import RECHECK_SECONDS, RETRY_SECONDS, STUCK_LIMIT, Enforcer
from ksmtuned_py.errors import Unreadable
from ksmtuned_py.model import Guest, GuestKsm
from ksmtuned_py.units import GIB, MIB
from tests.support.process import wait_for
from tests.support.snapshots import guest, snapshot

if TYPE_CHECKING:
    from ksmtuned_py.publish.journal import Record

PAGES_PER_GIB = GIB // 4096


class Monitor:
    """Takes the place of QEMU's monitor: does what it is told, or fails, or waits."""

    def __init__(self) -> None:
        self.switched: list[tuple[str, bool]] = []
        self.failure = ""
        self.free = threading.Event()
        self.free.set()

    def __call__(self, guest: Guest, merge: bool) -> str:
        self.free.wait(20.0)
        if self.failure:
            raise Unreadable("monitor", self.failure)
        self.switched.append((guest.name, merge))
        return "read back"


class Bench:
    """An enforcer with its monitor, its log and its clock."""

    def __init__(self) -> None:
        self.monitor = Monitor()
        self.records: list[Record] = []
        self.enforcer = Enforcer(self.monitor, self.records.append)
        self.seconds = 1000.0

    def tick(self, *guests: Guest, after: float = 1.0, **fields: object) -> None:
        """One look, and whatever it began is done unless the monitor waits."""
        self.seconds += after
        self.enforcer.consider(snapshot(at=self.seconds, guests=guests, **fields))  # type: ignore[arg-type] # as snapshot takes them
        if self.monitor.free.is_set():
            wait_for(lambda: not any(thread.name == "switch" for thread in threading.enumerate()), 5.0, "end of it")

    @property
    def told(self) -> list[str]:
        """What it said."""
        return [record.message for record in self.records]


@pytest.fixture
def bench() -> Iterator[Bench]:
    found = Bench()
    yield found
    found.monitor.free.set()
    found.tick()


def domain(name: str, pid: int, merge: bool | None = False, **fields: object) -> Guest:
    """A libvirt domain with 1 GiB merged."""
    ksm = GuestKsm(merging_pages=PAGES_PER_GIB, mergeable=True)
    known = replace(guest(name, pid), ksm=ksm, merge=merge, merge_reason="a rule", uuid=name, libvirt_age_seconds=0.0)
    return replace(known, **fields)  # type: ignore[arg-type] # fields of a Guest


def test_a_guest_is_switched_off_once_and_it_is_told(bench: Bench) -> None:
    web = domain("web", 1)
    for _ in range(3):
        bench.tick(web)
    assert bench.monitor.switched == [("web", False)]
    assert bench.told == ["guest web switched off: a rule; read back"]
    assert bench.records[0].fields["KSMTUNED_UUID"] == "web"
    assert bench.enforcer.switched_off == {web.key}


def test_one_at_a_time_and_those_that_may_not_merge_first(bench: Bench) -> None:
    guests = (domain("yes", 1, True), domain("one", 2), domain("two", 3))
    bench.tick(*guests)
    assert bench.monitor.switched == [("one", False)]
    bench.tick(*guests)
    bench.tick(*guests)
    assert bench.monitor.switched == [("one", False), ("two", False), ("yes", True)]


def test_it_is_switched_on_again_when_the_rule_is_gone(bench: Bench) -> None:
    for merge in (False, False, None, None, None):
        bench.tick(domain("web", 1, merge, merge_reason=""))
    assert bench.monitor.switched == [("web", False), ("web", True)]
    assert bench.told[-1] == "guest web switched on: nothing keeps it out any more; read back"
    assert bench.enforcer.switched_off == frozenset()


def test_a_guest_nobody_wants_anything_of_is_left_alone(bench: Bench) -> None:
    bench.tick(domain("web", 1, None))
    assert (bench.monitor.switched, bench.told) == ([], [])


def test_memory_that_was_plugged_in_later_is_switched_off_as_well(bench: Bench) -> None:
    web = domain("web", 1)
    bench.tick(web)
    bench.tick(web)
    bench.tick(web, after=RECHECK_SECONDS + 1)
    bench.tick(web)
    assert bench.monitor.switched == [("web", False)] * 2
    assert len(bench.told) == 1


def test_without_room_on_the_host_it_waits(bench: Bench) -> None:
    bench.tick(domain("web", 1), available_bytes=GIB)
    bench.tick(domain("web", 1), available_bytes=GIB)
    assert bench.told == ["guest web not switched off: it needs 1 GiB and the host has 768 MiB"]
    bench.tick(domain("web", 1))
    assert bench.monitor.switched == [("web", False)]


def test_without_room_in_its_cgroup_another_goes_first(bench: Bench) -> None:
    tight = domain("tight", 1, room_bytes=100 * MIB)
    bench.tick(tight, domain("web", 2))
    assert bench.monitor.switched == [("web", False)]
    assert "its cgroup's memory.max leaves 100 MiB" in bench.told[0]


def test_a_guest_that_is_no_domain_is_told_of_once(bench: Bench) -> None:
    bare = domain("bare", 1, libvirt_age_seconds=None)
    bench.tick(bare)
    assert bench.told == []  # libvirt may just be late
    bench.tick(bare, after=20.0)
    bench.tick(bare)
    assert len(bench.told) == 1
    assert "no domain of libvirt's" in bench.told[0]


def test_nosharepages_is_libvirts_word_and_stays(bench: Bench) -> None:
    bench.tick(domain("web", 1, True, obstacles=("nosharepages",)))
    assert bench.monitor.switched == []


def test_what_does_not_merge_anyway_is_left_alone(bench: Bench) -> None:
    bench.tick(domain("web", 1, ksm=GuestKsm(mergeable=False), libvirt_age_seconds=None), after=20.0)
    assert (bench.monitor.switched, bench.told) == ([], [])


def test_a_failure_is_told_once_and_tried_again(bench: Bench) -> None:
    bench.monitor.failure = "no"
    for _ in range(3):
        bench.tick(domain("web", 1))
    assert bench.told == ["guest web not switched off: monitor: cannot be read: no"]
    bench.monitor.failure = ""
    bench.tick(domain("web", 1), after=RETRY_SECONDS)
    bench.tick(domain("web", 1))
    assert bench.monitor.switched == [("web", False)]


def test_a_monitor_that_does_not_answer_holds_up_neither_the_tick_nor_the_others(bench: Bench) -> None:
    bench.monitor.free.clear()
    web, mail = domain("web", 1), domain("mail", 2)
    began = time.monotonic()
    bench.tick(web, mail)
    bench.tick(web, mail, after=60.0)
    assert time.monotonic() - began < 5.0  # the monitor would have answered after 20
    assert "no answer within" in bench.told[0]
    bench.monitor.free.set()
    bench.tick(web, mail)
    bench.tick(web, mail)
    assert ("mail", False) in bench.monitor.switched


def test_not_more_than_a_few_threads_are_left_waiting(bench: Bench) -> None:
    bench.monitor.free.clear()
    guests = [domain(f"web-{number}", number) for number in range(1, 10)]
    for _ in range(40):
        bench.tick(*guests, after=100.0)
    assert sum(thread.name == "switch" for thread in threading.enumerate()) <= STUCK_LIMIT


def test_a_guest_that_ended_meanwhile_is_forgotten(bench: Bench) -> None:
    bench.tick(domain("web", 1))
    bench.tick()
    assert bench.enforcer.switched_off == frozenset()
    assert bench.told == []
