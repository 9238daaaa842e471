"""khugepaged may not undo merging while memory is needed, and is else as it was found."""

from dataclasses import replace
from typing import get_args

import pytest

from ksmtuned_py.config import Adaptive, Config, Kernel
from ksmtuned_py.config.types import PolicyName
from ksmtuned_py.model import ForeignWrite, Knobs, Mode, Run, Snapshot
from ksmtuned_py.policy import decide
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import GIB
from tests.support.snapshots import snapshot

ASKED = Config(kernel=Kernel(khugepaged="need"))
EAGER = Config(kernel=Kernel(khugepaged="need"), adaptive=Adaptive(profile="eager"))
CAME = Knobs(run=Run.MERGE, pages_to_scan=100, sleep_millisecs=20)


def look(at: float, available_gib: float, shared: int | None = 256, none: int | None = 511) -> Snapshot:
    knobs = replace(CAME, khugepaged_max_ptes_shared=shared, khugepaged_max_ptes_none=none)
    return snapshot(at=at, knobs=knobs, available_bytes=round(available_gib * GIB))


def wanted(*looks: Snapshot, config: Config = ASKED) -> tuple[int | None, int | None]:
    """The settings wanted at the last of these looks."""
    trend = Trend.begin(config)
    for each in looks:
        trend = trend.after(each, config)
    knobs = decide(looks[-1], trend, config).knobs
    return knobs.khugepaged_max_ptes_shared, knobs.khugepaged_max_ptes_none


@pytest.mark.parametrize(("available_gib", "settings"), [(10, (256, 511)), (4, (0, 0)), (2, (0, 0)), (0.5, (0, 0))])
def test_need_decides(available_gib: float, settings: tuple[int, int]) -> None:
    assert wanted(look(0, available_gib)) == settings
    assert wanted(look(0, available_gib), config=EAGER) == (0, 0)
    assert wanted(look(0, available_gib), config=Config()) == (None, None)


def test_once_the_need_is_over_it_is_as_it_came_and_not_as_we_left_it() -> None:
    assert wanted(look(0, 2, 300, 0), look(1, 2, 0, 0), look(200, 10, 0, 0)) == (300, 0)


def test_a_kernel_without_it_is_asked_for_nothing() -> None:
    assert wanted(look(0, 2, None, None)) == (None, None)


def test_whoever_sets_it_has_it_from_then_on_and_ksm_is_steered_on() -> None:
    write = ForeignWrite(knob="khugepaged_max_ptes_shared", ours=0, seen=64)
    theirs = replace(look(1, 2, 64, 0), foreign=(write,))
    assert wanted(look(0, 2), theirs) == (None, 0)
    assert wanted(look(0, 2), theirs, look(4000, 10, 64, 0)) == (None, 511)
    trend = Trend.begin(ASKED).after(look(0, 2), ASKED).after(theirs, ASKED)
    decision = decide(theirs, trend, ASKED)
    assert decision.mode is not Mode.HELD
    assert decision.knobs.run is not None


@pytest.mark.parametrize("name", get_args(PolicyName))
def test_no_policy_leaves_behind_what_another_has_set(name: str) -> None:
    """After a reload, for instance."""
    config = Config.model_validate({"policy": {"name": name}, "kernel": {"khugepaged": "need", "ksmd_nice": "need"}})
    held = replace(look(1, 10, 0, 0), knobs=replace(look(1, 10, 0, 0).knobs, ksmd_nice=-5, advisor_mode="none"))
    trend = Trend.begin(ASKED).after(look(0, 2), ASKED).after(held, config)
    trend = trend.after(replace(held, clock=look(300, 10).clock), config)
    knobs = decide(held, trend, config).knobs
    assert (knobs.khugepaged_max_ptes_shared, knobs.khugepaged_max_ptes_none) == (256, 511)
    assert knobs.ksmd_nice is not None


def test_where_nothing_merges_nobody_gets_fewer_huge_pages() -> None:
    """Without guests, for instance, or where merging was given up for a loss."""
    seen = look(0, 2)
    rests = replace(seen, knobs=replace(seen.knobs, run=Run.STOP))
    assert wanted(rests) == wanted(rests, config=EAGER) == (256, 511)
    assert wanted(replace(rests, counters=replace(rests.counters, pages_sharing=1))) == (0, 0)
