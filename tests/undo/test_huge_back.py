"""Huge pages are given back as long as memory stays at comfort, ksmd rests, and the guest's cgroup has the room."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ksmtuned_py.backends.model import ModelBackend
from ksmtuned_py.daemon.machine import small_model
from ksmtuned_py.host import Host
from ksmtuned_py.model import Guest, Memory, Run, Write
from ksmtuned_py.model.room import CGROUP_RESERVE_BYTES
from ksmtuned_py.undo.hugeback import HugeWays, NotHuge, Pieces, give_huge_back, obstacle, planned, survey
from ksmtuned_py.undo.hugeplan import Portion, Survey
from ksmtuned_py.units import GIB, MIB
from tests.support.snapshots import guest

PAGE, RANGE_PAGES = 4096, 512
RANGE_BYTES = PAGE * RANGE_PAGES
WEB = guest("web")


class Backend(ModelBackend):
    """The model, with so much available memory as the test says, less what was given back."""

    available_bytes = 10 * GIB

    def memory(self) -> Memory:
        """The model's memory, or less of it."""
        return replace(super().memory(), total_bytes=16 * GIB, available_bytes=self.available_bytes)


class Stage:
    """A host whose guests have so many ranges with so many merged pages each."""

    def __init__(self) -> None:
        self.backend = Backend(small_model(), lambda: 0.0)
        self.backend.write(Write(knob="run", old=Run.MERGE, new=Run.STOP))
        self.host = Host(self.backend, self.backend)
        self.split = {10: 20, 100: 20, 400: 20}
        self.rested: list[float] = []
        self.open = 0
        self.limit_bytes: int | None = None
        self.fails: str | None = None

    def ways(self, comfort_bytes: int = 5 * GIB) -> HugeWays:
        """The ways on this host."""
        return HugeWays(self.host, self.pieces, comfort_bytes, lambda _: self.limit_bytes, self.rested.append)

    def pieces(self, _guest: Guest) -> Pieces:
        """The ranges of a guest."""
        self.open += 1
        return FakePieces(self)

    def scans(self) -> None:
        """Have ksmd scan."""
        self.backend.write(Write(knob="run", old=Run.STOP, new=Run.MERGE))


class FakePieces:
    """Stands for the child that collapses ranges. Each merged page takes one of the host's."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def survey(self) -> Survey:
        if self._stage.fails:
            raise NotHuge(self._stage.fails)
        counts = self._stage.split
        return Survey(range_pages=RANGE_PAGES, split=tuple(counts.get(merged, 0) for merged in range(RANGE_PAGES + 1)))

    def go_on(self, bound: int, count: int) -> Portion:
        told = Portion(cpu_seconds=0.01)
        for merged in sorted(self._stage.split):
            while merged <= bound and self._stage.split[merged] and told.given < count:
                self._stage.split[merged] -= 1
                self._stage.backend.available_bytes -= merged * PAGE
                told.given, told.paid = told.given + 1, told.paid + merged
        told.more = told.given == count
        return told

    def close(self) -> None:
        self._stage.open -= 1


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    assert stage.open == 0


def result(stage: Stage, most: int, **ways: int) -> Portion:
    """What was done in the end."""
    *_, last = give_huge_back(stage.ways(**ways), WEB, most)
    return last


def test_all_up_to_the_bound_are_given_back_and_each_portion_rests(stage: Stage) -> None:
    done = result(stage, 100)
    assert (done.given, done.paid, done.problem) == (40, 20 * 110, None)
    assert stage.split[400] == 20
    assert sum(stage.rested) == pytest.approx(done.cpu_seconds)
    assert len(stage.rested) > 1


def test_the_plan_is_what_memory_allows(stage: Stage) -> None:
    surveys = {WEB: survey(stage.ways(), WEB)}
    assert planned(stage.ways(), surveys) == RANGE_PAGES // 2
    stage.backend.available_bytes = 5 * GIB + 20 * 10 * PAGE
    assert planned(stage.ways(), surveys) == 99
    stage.backend.available_bytes = 5 * GIB - PAGE
    assert planned(stage.ways(), surveys) == -1
    assert planned(stage.ways(), {}) == -1


def test_it_stops_before_memory_falls_below_comfort(stage: Stage) -> None:
    stage.backend.available_bytes = 5 * GIB + 6 * MIB
    done = result(stage, 100)
    assert done.problem == "available memory would fall below 5 GiB"
    assert 0 < done.given < 40
    assert stage.backend.available_bytes >= 5 * GIB


def test_it_stops_when_ksmd_scans(stage: Stage) -> None:
    steps = give_huge_back(stage.ways(), WEB, 100)
    assert next(steps).problem is None
    stage.scans()
    assert [step.problem for step in steps] == ["ksmd scans, and would split again what is given back"]
    assert obstacle(stage.ways()) is not None


def test_a_guest_at_its_cgroups_limit_gets_none(stage: Stage) -> None:
    stage.limit_bytes = CGROUP_RESERVE_BYTES + RANGE_BYTES
    done = result(stage, 10)
    assert done.given == 0
    assert done.problem is not None
    assert "its cgroup's limit leaves" in done.problem


def test_a_guest_that_cannot_be_looked_at_is_an_error(stage: Stage) -> None:
    stage.fails = "it is frozen"
    with pytest.raises(NotHuge, match="it is frozen"):
        result(stage, 10)
