"""The chance by a record of two or three days, in which a quarter of a day is compared with the same of others. Pure.

Theory of operation
===================
In parts of a day most of what differs is the time of day, and taken for chance that would be a wide answer. So of each
quarter of the day its usual rise is taken off: how far its worst moment was, on average, above the mean of the time
before that day. What is left over tells what chance does, in all quarters alike.

Of two or three days an average is uncertain itself. So what is left over counts as wider, by as much as it takes that
the next day differs from the average of two.
"""

from bisect import bisect_right
from collections.abc import Sequence
from math import prod, sqrt
from typing import NamedTuple

from ksmtuned_py.policy.extremes import Worst

FEWEST_DAYS, MOST_DAYS = 2, 3
"""With fewer there is no usual. With more, parts of a day compared as they are say it as well (measured)."""
QUARTERS = 4
WIDER = sqrt(3)
"""Of two values, what each is off their mean is half their distance; the next is off by root three times that."""
LEAST_COVER = 0.5
"""The share of a quarter's moments that must be there."""


class Span(NamedTuple):
    """Some moments in a row, by their numbers."""

    begin: int
    end: int


class Day(NamedTuple):
    """One day of a record."""

    before: Span
    quarters: tuple[Span, ...]


def few_days(times: Sequence[float], back: float, day_seconds: float) -> tuple[Day, ...]:
    """The days of a record that has two or three, with so much time before each; none of any other."""
    end, count = times[-1], int((times[-1] - times[0] - back) / day_seconds)
    if not FEWEST_DAYS <= count <= MOST_DAYS:
        return ()
    found = tuple(_day(times, end - (number + 1) * day_seconds, back, day_seconds) for number in range(count))
    usual = len(times) / (end - times[0]) * day_seconds / QUARTERS
    spans = [span for day in found for span in day.quarters]
    is_whole = all(span.end - span.begin >= max(1.0, LEAST_COVER * usual) for span in spans)
    return found if is_whole and all(day.before.end > day.before.begin for day in found) else ()


def _day(times: Sequence[float], begin: float, back: float, day_seconds: float) -> Day:
    edges = [bisect_right(times, begin + quarter * day_seconds / QUARTERS) for quarter in range(QUARTERS + 1)]
    return Day(Span(bisect_right(times, begin - back), edges[0]), tuple(map(Span, edges, edges[1:])))


def chance_by_quarters(days: Sequence[Day], wanted: Sequence[float], left: float, least_width: float) -> float:
    """The chance that on the next day more is wanted than what is `left` above the mean of the time before it."""
    rises = [[max(wanted[span.begin : span.end]) - _mean(wanted, day.before) for span in day.quarters] for day in days]
    usual = [sum(each) / len(days) for each in zip(*rises, strict=True)]
    rest = [WIDER * (rise - its) for row in rises for rise, its in zip(row, usual, strict=True)]
    worst = Worst(rest, least_width)
    return 1 - prod(1 - worst.chance(left - its) for its in usual)


def _mean(wanted: Sequence[float], span: Span) -> float:
    return sum(wanted[span.begin : span.end]) / (span.end - span.begin)
