"""Plans which huge pages are given back: those whose ranges have the fewest merged pages. Pure.

A range is the memory of one huge page, whole or split. To give it back costs the host one page for each of its merged
pages, and for each that is mapped to the zero page. A guest's memory has ranges with few of them and ranges with many,
so the last fifth of what merging saves costs half of the huge pages (measured on three servers), and the first to be
given back are the cheapest.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

DENSE = 0.5
"""Ranges of which a larger share is merged stay merged, for there merging saves much for each huge page."""
SHARE = 0.5
"""The share of a core for giving them back."""
AGAIN_SECONDS, AGAIN_MAX_SECONDS = 600.0, 86_400.0
"""The rest after a round over all guests, and the longest.

To look for merged pages takes a minute for a TiB (measured).
"""
BINS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
"""The upper bounds of the histogram's columns, as shares of a range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The ranges of a guest's memory."""

    range_pages: int
    """The pages of one range."""
    huge: int = 0
    """The ranges that are in huge pages."""
    split: tuple[int, ...] = ()
    """The number of split ranges with so many merged pages, from none on."""
    left: int = 0
    """The split ranges that cannot be given back: with pages that are missing, in swap, or shared with a child."""

    @property
    def merged_pages(self) -> int:
        """The merged pages of all split ranges that can be given back."""
        return self.paid_pages(self.range_pages)

    def ranges(self, bound: int) -> int:
        """The split ranges with at most `bound` merged pages."""
        return sum(self.split[: bound + 1])

    def paid_pages(self, bound: int) -> int:
        """The merged pages of these ranges, which is what giving them back costs."""
        return sum(merged * count for merged, count in enumerate(self.split[: bound + 1]))

    def histogram(self) -> tuple[int, ...]:
        """The split ranges by their share of merged pages, one figure for each of BINS."""
        return tuple(self.ranges(high) - (self.ranges(low) if low >= 0 else 0) for low, high in _edges(self))


@dataclass(slots=True)
class Portion:
    """The result of giving back some ranges of one guest."""

    given: int = 0
    paid: int = 0
    """The merged pages that these ranges had."""
    failed: int = 0
    """The ranges that the kernel left split, because something else used their pages."""
    left: int = 0
    """The ranges that have changed since the survey, and are none for it any more."""
    more: bool = True
    """Whether there may be more of them."""
    problem: str | None = None
    """Why it cannot go on; None when it can."""
    cpu_seconds: float = 0.0

    def plus(self, other: "Portion") -> "Portion":
        """Both together, as far as the later one."""
        return Portion(
            given=self.given + other.given,
            paid=self.paid + other.paid,
            failed=self.failed + other.failed,
            left=self.left + other.left,
            more=other.more,
            problem=other.problem,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
        )


def together(surveys: Iterable[Survey]) -> Survey:
    """The ranges of several guests as if they were one's; there must be a guest."""
    first, *rest = surveys
    for each in rest:
        first = Survey(
            range_pages=first.range_pages,
            huge=first.huge + each.huge,
            split=tuple(_added(first.split, each.split)),
            left=first.left + each.left,
        )
    return first


def bound(survey: Survey, room_pages: int) -> int:
    """The most merged pages of a range that is given back, so that all of these ranges fit into the room.

    It is -1 when nothing fits. Ranges that cost nothing always fit, unless there is no room at all.
    """
    if room_pages < 0:
        return -1
    fits, paid = -1, 0
    for merged in range(int(survey.range_pages * DENSE) + 1):
        paid += merged * (survey.split[merged] if merged < len(survey.split) else 0)
        if paid > room_pages:
            break
        fits = merged
    return fits


def rest_after(rest_seconds: float, *, gave: bool) -> float:
    """The rest after a round: twice the last one, if the round gave nothing back."""
    return AGAIN_SECONDS if gave else min(2 * rest_seconds, AGAIN_MAX_SECONDS)


def _edges(survey: Survey) -> Iterator[tuple[int, int]]:
    low = -1
    for share in BINS:
        high = int(share * survey.range_pages)
        yield low, high
        low = high


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> Iterator[int]:
    for place in range(max(len(one), len(other))):
        yield sum(each[place] for each in (one, other) if place < len(each))
