"""The forecast of when memory is short: sooner for whatever falls faster, and never for what only swings."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.policy.forecast import AHEAD, KEPT_SECONDS, SWING_SECONDS, Forecast, Margin
from ksmtuned_py.units import GIB


def after(*left: tuple[float, float], merged_gib: float = 0) -> Forecast:
    """The forecast after looks at these seconds, at which so many GiB were left."""
    forecast = Forecast()
    for seconds, gib in left:
        forecast = forecast.after(Margin(seconds, round(gib * GIB), round((gib - merged_gib) * GIB)))
    return forecast


def falling(gib_per_second: float, seconds: int, step: int = 1, begin_gib: float = 100) -> Forecast:
    return after(*((at, begin_gib - at * gib_per_second) for at in range(0, seconds + 1, step)))


def test_a_steady_fall_is_foreseen_to_its_end() -> None:
    assert falling(1, 40).short_in_seconds == pytest.approx(60)
    assert falling(1, 40, step=10).short_in_seconds == pytest.approx(60)
    assert falling(1, 40).falls_by_bytes(10) == pytest.approx(10 * GIB)
    assert falling(1, 100).short_in_seconds == 0
    assert falling(0, 100).short_in_seconds == inf


def test_a_fall_predicts_some_times_as_far_ahead_as_it_lasted() -> None:
    assert falling(1, 10).short_in_seconds == inf  # 90 s are too far ahead
    assert falling(1, 20).short_in_seconds == pytest.approx(80)
    assert after((0, 1000), (2, 992)).short_in_seconds == inf  # one allocation
    assert after((0, 1000), (1, 0.5)).short_in_seconds == inf  # a second tells nothing at all


def test_memory_that_swings_is_no_fall_once_it_was_seen_to_swing() -> None:
    swing = [(at, 50 + 20 * abs(at % 20 / 10 - 1)) for at in range(400)]
    assert all(after(*swing[:end]).short_in_seconds == inf for end in range(90, 400))


def test_merging_does_not_hide_a_fall() -> None:
    forecast = Forecast()
    for at in range(41):
        forecast = forecast.after(Margin(at, 40 * GIB, (80 - at) * GIB))
    assert forecast.short_in_seconds == pytest.approx(40)


def test_after_a_long_time_without_a_look_the_last_one_still_counts() -> None:
    looks = [(number * 2 * KEPT_SECONDS, gib) for number, gib in enumerate((100, 100, 40))]
    assert after(*looks).short_in_seconds == pytest.approx(800)


def test_a_clock_that_goes_back_begins_anew() -> None:
    forecast = after((5000, 100), (5010, 10), (20, 100), (25, 100))
    assert forecast.short_in_seconds == inf
    assert [level.left.seconds for level in forecast.kept] == [20, 25]


def test_what_is_kept_is_little_however_often_one_looks() -> None:
    forecast = after(*((at / 100, 100) for at in range(20 * 100)))
    assert len(forecast.kept) <= 21
    assert len(after(*((at, 100) for at in range(5000))).kept) <= SWING_SECONDS + KEPT_SECONDS / 15 + 2


LOOKS = st.lists(st.tuples(st.floats(0.5, 100), st.integers(-10 * GIB, 500 * GIB)), min_size=1, max_size=30)


def history(looks: list[tuple[float, int]]) -> tuple[list[Margin], float]:
    at, left = 0.0, []
    for wait, size in looks:
        at += wait
        left.append(Margin(at, size, size))
    return left, at


def short_in(left: list[Margin]) -> float:
    forecast = Forecast()
    for each in left:
        forecast = forecast.after(each)
    return forecast.short_in_seconds


@given(LOOKS, st.floats(0.5, 100), st.integers(-10 * GIB, 500 * GIB), st.integers(0, 100 * GIB))
def test_less_memory_now_is_never_short_later(looks: list[tuple[float, int]], wait: float, now: int, less: int) -> None:
    past, at = history(looks)
    one, other = (short_in([*past, Margin(at + wait, size, size)]) for size in (now, now - less))
    assert other <= one


@given(st.floats(0.01, 10), st.floats(1, 5), st.integers(2, 300), st.sampled_from([1, 3, 10]))
def test_a_faster_fall_is_never_short_later(slow: float, times: float, seconds: int, step: int) -> None:
    assert falling(slow * times, seconds, step).short_in_seconds <= falling(slow, seconds, step).short_in_seconds


@given(LOOKS)
def test_it_looks_no_further_ahead_than_it_has_looked_back(looks: list[tuple[float, int]]) -> None:
    left, at = history(looks)
    forecast = short_in(left)
    assert forecast == inf or forecast <= AHEAD * (at - left[0].seconds)
    assert (forecast == 0) == (left[-1].bytes <= 0)


@given(st.floats(0.01, 20), st.floats(5, 500), st.sampled_from([1, 5, 10]))
def test_a_steady_fall_is_seen_before_a_sixth_of_its_time_is_over(rate: float, lasts: float, step: int) -> None:
    """Looks come at whole steps, so one of them may be missed."""
    begin = lasts * rate
    forecast = after(*((at, begin) for at in range(-120, 0, step)))
    for at in range(0, int(lasts) + step, step):
        size = round((begin - at * rate) * GIB)
        forecast = forecast.after(Margin(at, size, size))
        if at >= max(lasts / (1 + AHEAD), 2) + step and at < lasts:
            assert forecast.short_in_seconds <= (lasts - at) * 1.01 + 1e-6
