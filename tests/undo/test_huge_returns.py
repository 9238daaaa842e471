"""Huge pages are given back beside the ticks while that is wanted, and no longer."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ksmtuned_py.model import HugeBack, Knobs, Run, Snapshot
from ksmtuned_py.model.hugeplan import AGAIN_MAX_SECONDS, AGAIN_SECONDS
from ksmtuned_py.undo.hugeback import HugeWays
from ksmtuned_py.undo.hugereturns import HugeReturns
from ksmtuned_py.units import GIB
from tests.support.hugestage import PAGE, HugeStage
from tests.support.process import wait_for
from tests.support.snapshots import guest, snapshot

SPARE = 5 * GIB


class Returns:
    """Returns on a stage, and what they said."""

    def __init__(self) -> None:
        self.stage = HugeStage()
        self.said: list[str] = []
        self.rounds = 0
        self.all = HugeReturns(self._ways, self.said.append)

    def _ways(self, comfort_bytes: int) -> HugeWays:
        self.rounds += 1
        return self.stage.ways(comfort_bytes)

    def consider(self, at: float, spare_bytes: int | None = SPARE, *, run: Run = Run.STOP) -> None:
        """One tick, and the end of what it began."""
        self.all.consider(seen(at, run), spare_bytes)

    def ended(self) -> None:
        """Wait until nothing is given back any more."""
        wait_for(lambda: self.stage.open == 0 and not self.all.running, 5.0, "end of a round")


def seen(at: float, run: Run = Run.STOP) -> Snapshot:
    """What a tick sees."""
    memory = replace(snapshot().memory, available_bytes=10 * GIB)
    return snapshot(at=at, knobs=Knobs(run=run), memory=memory, guests=(guest("web"), guest("db", pid=200)))


@pytest.fixture
def returns() -> Iterator[Returns]:
    found = Returns()
    yield found
    found.stage.answers.set()
    found.all.close()


def test_they_are_given_back_once_and_it_is_told(returns: Returns) -> None:
    returns.consider(0)
    returns.ended()
    returns.consider(1)
    assert returns.all.told.given == 40
    assert returns.all.told.paid_bytes == 20 * 110 * PAGE
    assert returns.all.told.problem is None
    assert returns.said[0].startswith("web: 40 huge pages are back for 8.6 MiB of merged memory")
    returns.consider(AGAIN_SECONDS)
    assert returns.rounds == 1
    returns.consider(AGAIN_SECONDS + 1)
    assert returns.rounds == 2


def test_nothing_begins_while_ksmd_scans_or_nobody_wants_it(returns: Returns) -> None:
    returns.consider(0, None)
    returns.consider(1, run=Run.MERGE)
    returns.consider(2, 0)
    assert returns.rounds == 0


@pytest.mark.parametrize("run", [Run.STOP, Run.MERGE])
def test_it_ends_at_once_when_need_returns(returns: Returns, run: Run) -> None:
    returns.stage.answers.clear()
    returns.consider(0)
    wait_for(lambda: returns.stage.asked > 0, 5.0, "a portion")
    returns.consider(1, None if run is Run.STOP else SPARE, run=run)
    returns.stage.answers.set()
    returns.ended()
    assert returns.all.told.given == 8
    assert returns.all.told.problem is None
    returns.consider(2)
    returns.consider(3)
    assert returns.rounds == 2


def test_a_guest_that_cannot_be_looked_at_keeps_no_other_waiting(returns: Returns) -> None:
    returns.stage.fails = {"web": "it is stopped or frozen"}
    returns.consider(0)
    returns.ended()
    assert returns.all.told.problem == "web: it is stopped or frozen"
    assert returns.all.told.given == 40


def test_rounds_that_give_nothing_back_are_further_and_further_apart(returns: Returns) -> None:
    returns.stage.split = {}
    at, gaps = 0.0, []
    for _ in range(12):
        returns.consider(at)
        returns.ended()
        returns.consider(at + 1)
        before, began = returns.rounds, at + 1
        while returns.rounds == before:
            at += AGAIN_SECONDS / 2
            returns.consider(at)
        gaps.append(at - began)
        returns.ended()
        returns.consider(at)
        at += AGAIN_MAX_SECONDS * 2
    assert gaps == sorted(gaps)
    assert gaps[-1] <= AGAIN_MAX_SECONDS + AGAIN_SECONDS


def test_what_was_split_since_a_round_in_vain_is_given_back_at_once(returns: Returns) -> None:
    returns.stage.split, split = {}, returns.stage.split
    returns.consider(0)
    returns.ended()
    returns.consider(1)
    returns.stage.split = split
    returns.consider(100, None, run=Run.MERGE)
    returns.consider(200)
    returns.ended()
    returns.consider(201)
    assert (returns.rounds, returns.all.told.given) == (2, 40)
    returns.consider(300, None, run=Run.MERGE)  # a round that was not in vain has its rest all the same
    returns.consider(400)
    assert returns.rounds == 2


def test_whatever_fails_is_told_and_ends_nothing_else(returns: Returns) -> None:
    returns.stage.breaks = True
    returns.consider(0)
    returns.ended()
    returns.consider(1)
    assert returns.all.told.problem == "giving back: broken"


class Own:
    """A backend that gives back by itself, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[int | None] = []

    def huge_back(self, above_bytes: int | None) -> HugeBack:
        self.asked.append(above_bytes)
        return HugeBack(given=len(self.asked))


def test_a_backend_that_gives_back_itself_is_told_how_much_has_to_stay() -> None:
    own = Own()
    returns = HugeReturns(lambda comfort_bytes: HugeStage().ways(comfort_bytes), print, own)
    assert returns.consider(seen(0), SPARE).given == 1
    returns.consider(seen(1), None)
    returns.consider(seen(2, Run.MERGE), SPARE)
    returns.consider(seen(3), 0)
    assert own.asked == [10 * GIB - SPARE, None, None, 10 * GIB]
    assert not returns.running
    assert returns.told.given == 4


def test_on_a_captured_tree_it_is_asked_for_nothing() -> None:
    own = Own()
    HugeReturns(None, print, own).consider(seen(0), SPARE)
    assert own.asked == [None]
