"""Huge pages are given back as long as memory stays at comfort, ksmd rests, and the guest's cgroup has the room."""

from collections.abc import Iterator

import pytest

from ksmtuned_py.model.hugeplan import Portion
from ksmtuned_py.model.room import CGROUP_RESERVE_BYTES
from ksmtuned_py.undo.hugeback import NotHuge, give_huge_back, obstacle, planned, survey
from ksmtuned_py.units import GIB, MIB
from tests.support.hugestage import PAGE, RANGE_BYTES, RANGE_PAGES, HugeStage
from tests.support.snapshots import guest

WEB = guest("web")


@pytest.fixture
def stage() -> Iterator[HugeStage]:
    stage = HugeStage()
    yield stage
    assert stage.open == 0


def result(stage: HugeStage, most: int, **ways: int) -> Portion:
    """What was done in the end."""
    *_, last = give_huge_back(stage.ways(**ways), WEB, most)
    return last


def test_all_up_to_the_bound_are_given_back(stage: HugeStage) -> None:
    done = result(stage, 100)
    assert (done.given, done.paid, done.problem) == (40, 20 * 110, None)
    assert stage.split[400] == 20


def test_the_plan_is_what_memory_allows(stage: HugeStage) -> None:
    surveys = {WEB: survey(stage.ways(), WEB)}
    assert planned(stage.ways(), surveys) == RANGE_PAGES // 2
    stage.backend.available_bytes = 5 * GIB + 20 * 10 * PAGE
    assert planned(stage.ways(), surveys) == 99
    stage.backend.available_bytes = 5 * GIB - PAGE
    assert planned(stage.ways(), surveys) == -1
    assert planned(stage.ways(), {}) == -1


def test_it_stops_before_memory_falls_below_comfort(stage: HugeStage) -> None:
    stage.backend.available_bytes = 5 * GIB + 6 * MIB
    done = result(stage, 100)
    assert done.problem == "available memory would fall below 5 GiB"
    assert 0 < done.given < 40
    assert stage.backend.available_bytes >= 5 * GIB


def test_it_stops_when_ksmd_scans(stage: HugeStage) -> None:
    steps = give_huge_back(stage.ways(), WEB, 100)
    assert next(steps).problem is None
    stage.scans()
    assert [step.problem for step in steps] == ["ksmd scans, and would split again what is given back"]
    assert obstacle(stage.ways()) is not None


def test_a_guest_at_its_cgroups_limit_gets_none(stage: HugeStage) -> None:
    stage.limit_bytes = CGROUP_RESERVE_BYTES + RANGE_BYTES
    done = result(stage, 10)
    assert done.given == 0
    assert done.problem is not None
    assert "its cgroup's limit leaves" in done.problem


def test_a_guest_that_cannot_be_looked_at_is_an_error(stage: HugeStage) -> None:
    stage.fails = {"web": "it is frozen"}
    with pytest.raises(NotHuge, match="it is frozen"):
        result(stage, 10)
