"""The past is kept finely for an hour and thinner for a month, and is read back in as many rows as are wanted."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ksmtuned_py.model import Clock
from ksmtuned_py.publish.history import (
    COLUMNS,
    DAY_SECONDS,
    HOUR_SECONDS,
    MODE,
    STEPS,
    Cell,
    History,
    Row,
    mean,
    row_of,
)
from ksmtuned_py.publish.rows import Told
from ksmtuned_py.publish.totals import Totals
from tests.support.reports import BARE, FULL, report

NOW = 1_800_000_000.0
GUESTS = list(COLUMNS).index("guests")


def told(unix_seconds: float) -> Told:
    tick = report(FULL, clock=Clock(monotonic_seconds=unix_seconds - NOW, unix_seconds=unix_seconds))
    return Told(tick, Totals().after(tick))


def row(unix_seconds: float, guests: float = 1.0) -> Row:
    made = row_of(told(unix_seconds))
    made[GUESTS] = guests
    return made


def times(rows: list[list[Cell]]) -> list[float]:
    """The times of rows that were read."""
    return [float(cells[0] or 0) for cells in rows]


def filled(seconds: int, every: float = 10.0) -> History:
    """A history of so many seconds up to NOW."""
    history, one = History(), told(NOW)
    for number in range(int(seconds / every) + 1):
        now = replace(one.snapshot, clock=Clock(monotonic_seconds=0, unix_seconds=NOW - seconds + number * every))
        history.add(Told(replace(one.report, snapshot=now), one.totals))
    return history


def test_a_row_says_what_the_tick_saw() -> None:
    history = History()
    history.add(told(NOW))
    [found] = [dict(zip(COLUMNS, cells, strict=True)) for cells in history.since(NOW, HOUR_SECONDS, 10)]
    assert found["time_seconds"] == NOW
    assert found["saved_bytes"] == found["debt_bytes"] == FULL.saved_bytes
    assert found["memory_pressure"] == 0.015
    assert found["guests"] == len(FULL.guests)
    assert found["mode"] == "cruise"


def test_what_was_not_known_is_null() -> None:
    history = History()
    bare = report(BARE)
    history.add(Told(bare, Totals().after(bare)))
    seen_seconds = bare.snapshot.clock.unix_seconds
    [found] = [dict(zip(COLUMNS, cells, strict=True)) for cells in history.since(seen_seconds, HOUR_SECONDS, 10)]
    assert found["memory_pressure"] is found["huge_bytes"] is found["ksmd_cpu_share"] is None


def test_a_minute_in_the_past_day_and_ten_in_the_past_month() -> None:
    history = filled(3 * DAY_SECONDS, every=30.0)
    for seconds, step in ((HOUR_SECONDS, 30), (DAY_SECONDS, 60), (2 * DAY_SECONDS, 60), (3 * DAY_SECONDS, 600)):
        found = times(history.since(NOW, seconds, 100_000))
        assert found[0] <= NOW - seconds + 2 * step
        gaps = {later - earlier for earlier, later in pairwise(found[1:-1])}
        assert gaps == {step}


def test_it_is_bounded() -> None:
    history = filled(3 * HOUR_SECONDS, every=5.0)
    assert len(history.since(NOW, HOUR_SECONDS, 100_000)) <= STEPS[0].most_rows + 1
    assert sum(step.most_rows for step in STEPS) < 8000
    for _ in range(3):
        history.restore(5, [row(NOW - 2 * HOUR_SECONDS - number) for number in range(1000)])
    assert len(history.since(NOW, HOUR_SECONDS, 100_000)) <= STEPS[0].most_rows + 1


@given(
    seen=some.lists(some.floats(0, 10_000), min_size=1, max_size=60),
    seconds=some.integers(1, 10_000),
    points=some.integers(1, 50),
)
def test_never_more_rows_than_wanted_and_always_in_order(seen: list[float], seconds: int, points: int) -> None:
    """Whatever the clock does."""
    history, one = History(), told(NOW)
    for time in seen:
        now = replace(one.snapshot, clock=Clock(monotonic_seconds=0, unix_seconds=NOW + time))
        history.add(Told(replace(one.report, snapshot=now), one.totals))
    found = times(history.since(NOW + max(seen), seconds, points))
    assert len(found) <= points
    assert found == sorted(found)


@pytest.mark.parametrize("wrong", [-NOW, -3.0 * HOUR_SECONDS, 3.0 * HOUR_SECONDS, 1e9], ids=lambda wrong: f"{wrong:g}")
def test_a_clock_that_is_wrong_for_a_moment_costs_nothing_of_the_past(wrong: float) -> None:
    history = filled(3 * DAY_SECONDS, every=30.0)
    before = {span: times(history.since(NOW, span, 100_000)) for span in (HOUR_SECONDS, DAY_SECONDS, 3 * DAY_SECONDS)}
    for late in (wrong, 30.0, 60.0):
        history.add(told(NOW + late))
    for span, known in before.items():
        found = times(history.since(NOW + 60, span, 100_000))
        assert len(found) >= len(known) - 2
        assert found[-1] <= NOW + 60


def test_a_clock_that_was_wrong_at_the_start_hides_nothing_that_was_saved() -> None:
    history = History()
    history.add(told(0.0))
    history.restore(5, [row(NOW - 60 + number) for number in range(0, 60, 5)])
    history.add(told(NOW))
    assert len(history.since(NOW, HOUR_SECONDS, 2000)) == 13


def test_the_mean_leaves_out_what_was_not_known() -> None:
    found = mean([row(NOW, 2.0), row(NOW + 2, math.nan), row(NOW + 4, 6.0)])
    assert (found[0], found[GUESTS], found[MODE]) == (NOW + 2, 4.0, row(NOW)[MODE])


def test_what_was_saved_comes_before_what_came_since() -> None:
    history = filled(60)
    history.restore(5, [row(NOW - 600, 7.0), row(NOW - 605, 7.0), row(NOW - 10, 7.0)])
    found = history.since(NOW, HOUR_SECONDS, 2000)
    assert [cells[GUESTS] for cells in found[:3]] == [7, 7, len(FULL.guests)]
    assert times(found) == sorted(times(found))


def test_each_completed_row_is_handed_over_once() -> None:
    history = filled(1200)
    taken = [step for step, _ in history.take_unsaved()]
    assert (taken.count(5), taken.count(60), taken.count(600)) == (120, 19, 1)
    assert history.take_unsaved() == []
