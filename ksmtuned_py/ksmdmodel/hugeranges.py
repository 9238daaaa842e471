"""The huge pages of a guest's memory: ksmd splits one as soon as one of its pages merges, khugepaged makes new ones.

Pure. Each group of pages is spread evenly over a row of huge pages, or over all of the guest's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ksmtuned_py.ksmdmodel.contents import ZERO_CONTENT
from ksmtuned_py.ksmdmodel.guestmemory import Group, GuestMemory
from ksmtuned_py.ksmdmodel.pages import NEW, PagePlace
from ksmtuned_py.ksmdmodel.runs import Runs

HUGE_PAGES = 512
"""Pages in a huge page (2 MiB)."""
SPLIT_COST = 0.65
"""How much longer a random read takes in small pages, on Linux 6.18 in a virtual machine (docs/simulation.md)."""
FREE = (PagePlace.FREED, PagePlace.ZEROED, PagePlace.ZERO)


@dataclass(frozen=True, slots=True)
class Spread:
    """The places of a group's pages: from one huge page up to another, so many in each."""

    begin: int
    end: int
    pages: int

    def huge(self, page: int) -> int:
        """Returns the huge page that a page is in."""
        return self.begin + page * (self.end - self.begin) // self.pages

    def first(self, huge: int) -> int:
        """Returns the first page of the group that is in a huge page, or in one behind it."""
        inside = min(max(huge, self.begin), self.end) - self.begin
        return -(-inside * self.pages // (self.end - self.begin))


class HugeRanges:
    """One guest's huge pages; all are whole at first."""

    def __init__(self, guest: GuestMemory, *, mixed: bool) -> None:
        """`mixed` guests have pages of each kind in every huge page, others have a row of pages of each kind."""
        self.count = -(-guest.pages // HUGE_PAGES)
        self.whole = self.count
        self.splits = 0
        self._guest = guest
        self._state: Runs[bool] = Runs(self.count, True)
        self._spreads: dict[Group, Spread] = {}
        begun = 0
        for group in guest.groups:
            end = begun + group.spec.pages
            row = (0, self.count) if mixed else (begun // HUGE_PAGES, -(-end // HUGE_PAGES))
            self._spreads[group] = Spread(*row, group.spec.pages)
            begun = end

    @property
    def speed(self) -> float:
        """The speed of random reads, of that in huge pages alone."""
        return 1 / (1 + SPLIT_COST * (1 - self.whole / self.count)) if self.count else 1.0

    def alike_until(self, group: Group, page: int) -> int:
        """Returns the end of the pages of which each may merge before any is freed by a split."""
        spread = self._spreads[group]
        huge = spread.huge(page)
        zero = group.spec.content == ZERO_CONTENT and self._state.at(huge)[1]
        return page + 1 if zero else group.spec.pages

    def splits_per_page(self, group: Group, page: int) -> float:
        """Returns how many huge pages are split for each page of the group that merges from this one on."""
        spread = self._spreads[group]
        if not self._state.at(spread.huge(page))[1]:
            return 0.0
        alone = group.spec.content == ZERO_CONTENT  # the split frees all others
        return 1.0 if alone else (spread.end - spread.begin) / spread.pages

    def split(self, group: Group, begin: int, end: int) -> None:
        """Splitting what holds pages that were merged; the zero pages in it are free from then on (Linux 6.12)."""
        spread = self._spreads[group]
        first, last = spread.huge(begin), spread.huge(end - 1) + 1
        for low, high, whole in self._state.between(first, last):
            if whole:
                self._state.put(low, high, False)
                self.whole -= high - low
                self.splits += high - low
                self._free_zeros(low, high)

    def split_ones(self, begin: int) -> Iterator[int]:
        """Yields those that are split, from one on to the last."""
        for low, high, whole in self._state.between(begin, self.count):
            if not whole:
                yield from range(low, high)

    def merged(self, huge: int) -> tuple[int, int]:
        """Returns how many pages of it are merged, and how many are free."""
        merged = free = 0
        for group, begin, end in self._parts(huge):
            for first, last, state in group.pages.between(begin, end):
                merged += (last - first) * (state.place is PagePlace.STABLE)
                free += (last - first) * (state.place in FREE)
        return merged, free

    def collapse(self, huge: int) -> None:
        """Makes it whole again: what was merged or free in it has pages of its own."""
        for group, begin, end in self._parts(huge):
            group.break_merged(begin, end)
            for first, last, state in group.pages.between(begin, end):
                if state.place in FREE:
                    group.put(first, last, NEW)
        self._state.put(huge, huge + 1, True)
        self.whole += 1

    def _parts(self, huge: int) -> Iterator[tuple[Group, int, int]]:
        for group, spread in self._spreads.items():
            begin, end = spread.first(huge), spread.first(huge + 1)
            if begin < end:
                yield group, begin, end

    def _free_zeros(self, low: int, high: int) -> None:
        for group, spread in self._spreads.items():
            if group.spec.content == ZERO_CONTENT:
                group.free(spread.first(low), spread.first(high))
