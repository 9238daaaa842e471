"""The policy's run=2 is carried out beside the ticks, and only for as long as the policy wants it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ksmtuned_py.host import Host
from ksmtuned_py.model import Clock, Run, Snapshot, Write, WriteResult, WriteStatus
from ksmtuned_py.undo.background import RETRY_SECONDS, GivingBack
from ksmtuned_py.units import MIB
from tests.support.givingstage import Stage
from tests.support.process import wait_for

WANTED = (Write(knob="run", old=Run.MERGE, new=Run.UNMERGE),)
ASIDE = (Write(knob="run", old=Run.STOP, new=Run.MERGE),)


class Ticking(Stage):
    """A host that ticks, and gives memory back beside the ticks."""

    def __init__(self) -> None:
        super().__init__()
        self.at_seconds = 0.0
        giving_back = GivingBack(
            self.domains,
            self.domains,
            lambda host, tell: replace(self.ways, host=host, progress=tell, empty=None),
        )
        self.host = Host(self.domains, self.domains, self._clock, giving_back=giving_back)
        self.look()

    def look(self) -> Snapshot:
        """What a tick sees."""
        return self.host.observe()

    def ask(self) -> WriteResult:
        """Ask for run=2, as each tick does that wants it."""
        return self.host.apply(WANTED).results[0]

    def result(self) -> WriteResult:
        """Ask for run=2 until that has ended, and return how."""

        def ended() -> tuple[WriteResult, ...]:
            result = self.ask()
            return (result,) if result.status is not WriteStatus.PENDING else ()

        return wait_for(ended, 10, "the end of giving back")[0]

    def begun(self) -> "Ticking":
        """The same, with a first guest that is asked for its pages, and does not answer."""
        self.answers.clear()
        assert self.ask().status is WriteStatus.PENDING
        wait_for(lambda: self.portions, 10, "the first guest")
        return self

    def _clock(self) -> Clock:
        return Clock(monotonic_seconds=self.at_seconds, unix_seconds=self.at_seconds)


@pytest.fixture
def host() -> Iterator[Ticking]:
    ticking = Ticking()
    yield ticking
    ticking.host.abort()
    ticking.answers.set()
    wait_for(lambda: all(portions.closed for portions in ticking.portions), 10, "end of all that was begun")


def test_ticks_go_on_until_all_is_given_back(host: Ticking) -> None:
    host.begun()
    for _ in range(3):
        seen = host.look()
        assert (seen.giving_back, seen.knobs.run, seen.foreign) == (True, Run.STOP, ())
        assert host.ask().status is WriteStatus.PENDING
    host.answers.set()
    assert host.result().status is WriteStatus.OK
    seen = host.look()
    assert (seen.giving_back, seen.knobs.run, seen.foreign, seen.saved_bytes) == (False, Run.UNMERGE, (), 0)
    assert host.unshared.keys() == {"model-1", "model-2"}
    assert host.switched == []  # QEMU could not be cut short


def test_how_far_it_is_is_told(host: Ticking) -> None:
    host.begun()
    wait_for(lambda: host.ask().detail, 10, "a word")
    host.answers.set()
    host.domains.pending = iter([number / 100 for number in range(10)])
    told = set[str]()

    def ended() -> bool:
        result = host.ask()
        told.add(result.detail)
        return result.status is WriteStatus.OK

    wait_for(ended, 10, "the end of giving back")
    assert any("left ..." in sentence or " of " in sentence for sentence in told)


def test_it_ends_when_the_policy_wants_something_else(host: Ticking) -> None:
    host.begun()
    assert host.host.apply(ASIDE).results[0].status is WriteStatus.OK
    host.answers.set()
    wait_for(lambda: host.portions[0].closed, 10, "the end")
    assert len(host.portions) == 1  # the second guest was left alone
    seen = host.look()
    assert (seen.giving_back, seen.knobs.run, seen.foreign) == (False, Run.MERGE, ())


@pytest.mark.parametrize("end", ["abort", "watch", "apply"])
def test_it_ends_when_nobody_wants_anything(host: Ticking, end: str) -> None:
    host.begun()
    host.host.apply(()) if end == "apply" else getattr(host.host, end)()
    assert not host.look().giving_back
    host.answers.set()
    wait_for(lambda: host.portions[0].closed, 10, "the end")
    assert (len(host.portions), host.look().knobs.run) == (1, Run.STOP)


def test_a_second_round_waits_for_a_guest_that_does_not_answer_the_first(host: Ticking) -> None:
    host.begun()
    host.host.apply(())
    result = host.ask()
    assert (result.status, result.detail) == (
        WriteStatus.PENDING,
        "a round that was called off still waits for a guest",
    )
    assert not host.look().giving_back
    host.answers.set()
    assert host.result().status is WriteStatus.OK


def test_a_guest_without_room_stays_merged_and_the_next_try_waits(host: Ticking) -> None:
    host.rooms["model-1"] = 17 * MIB
    refused = host.result()
    assert refused.status is WriteStatus.REFUSED
    assert "guest model-1: " in refused.detail
    assert host.unshared.keys() == {"model-2"}
    assert any(said.startswith("model-1 stays merged: ") for said in host.said)
    begun = len(host.portions)
    host.at_seconds = RETRY_SECONDS - 1
    assert (host.look().knobs.run, host.ask()) == (Run.STOP, replace(refused, status=WriteStatus.PENDING))
    assert not host.look().giving_back
    assert len(host.portions) == begun
    host.at_seconds = RETRY_SECONDS
    host.look()
    assert host.result().status is WriteStatus.REFUSED
    host.at_seconds, host.rooms["model-1"] = 3 * RETRY_SECONDS - 1, 1 << 30
    host.look()
    assert host.ask().status is WriteStatus.PENDING  # it waits for twice as long
    host.at_seconds = 3 * RETRY_SECONDS
    host.look()
    assert host.result().status is WriteStatus.OK


def test_memory_that_runs_out_on_the_way_ends_it(host: Ticking) -> None:
    host.begun()
    host.domains.available_bytes = 0
    host.answers.set()
    assert host.result().status is WriteStatus.REFUSED
    assert len(host.unshared) == 1
    assert host.look().knobs.run == Run.STOP


def test_one_that_only_watches_gives_nothing_back(host: Ticking) -> None:
    host.host.watch()
    assert (host.ask().status, host.portions) == (WriteStatus.DRY, [])
