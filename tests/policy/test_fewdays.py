"""Two or three days are compared quarter by quarter; other records, and those with gaps, are not."""

import pytest

from ksmtuned_py.policy.fewdays import chance_by_quarters, few_days

DAY = 24.0
TIMES = [float(hour) for hour in range(73)]


@pytest.mark.parametrize(("days", "found"), [(1.0, 0), (2.5, 0), (2.7, 2), (4.9, 3), (6.0, 0)])
def test_two_or_three_days_are_compared_each_with_what_was_before(days: float, found: int) -> None:
    times = [minute / 60 for minute in range(round(days * 1440) + 1)]
    assert len(few_days(times, min(DAY, days * DAY / 4), DAY)) == found


def test_each_day_is_cut_into_quarters_and_the_last_ends_now() -> None:
    last, first = few_days(TIMES, 18.0, DAY)
    assert [(span.begin, span.end) for span in last.quarters] == [(49, 55), (55, 61), (61, 67), (67, 73)]
    assert (last.before.end, first.quarters[-1].end) == (49, 49)


@pytest.mark.parametrize("gap", [range(50, 55), range(7, 25)], ids=["most of a quarter", "all before a day"])
def test_a_record_with_a_gap_is_not_cut_so(gap: range) -> None:
    assert few_days([time for time in TIMES if time not in gap], 18.0, DAY) == ()


def test_what_a_quarter_has_each_day_is_no_chance() -> None:
    days = few_days(TIMES, 18.0, DAY)
    rhythm = [100.0 * (hour % 24 == 12) for hour in range(73)]
    swings = [100.0 * (hour == 12 + 48) for hour in range(73)]
    assert chance_by_quarters(days, rhythm, left=110, least_width=1) < 0.1
    assert chance_by_quarters(days, rhythm, left=90, least_width=1) > 0.9
    assert chance_by_quarters(days, swings, left=110, least_width=1) > 0.1
