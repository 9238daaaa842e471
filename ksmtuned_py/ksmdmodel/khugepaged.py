"""khugepaged: makes huge pages of small ones at its own pace, merged pages or not (mm/khugepaged.c). Pure."""

from collections.abc import Iterator, Sequence

from ksmtuned_py.ksmdmodel.hugeranges import HUGE_PAGES, HugeRanges

PERIOD_NS = 10_000_000_000
"""scan_sleep_millisecs, at its default."""
RANGES = 4096 // HUGE_PAGES
"""How many ranges it looks at before it sleeps: pages_to_scan, at its default."""
MAX_PTES_SHARED = HUGE_PAGES // 2
"""It leaves a range alone that has more merged pages."""
MAX_PTES_NONE = HUGE_PAGES - 1


class Khugepaged:
    """Walks round and round over the split huge pages of all guests; ranges that are whole cost it nothing here."""

    def __init__(self) -> None:
        self.collapses = 0
        self.next_ns = PERIOD_NS
        """When it wakes."""
        self._guest = 0
        self._huge = 0

    def wake(self, guests: Sequence[HugeRanges]) -> None:
        """Looks at the next ranges, and makes huge pages of those that it may."""
        self.next_ns += PERIOD_NS
        for memory, huge in self._next_ranges(guests):
            merged, free = memory.merged(huge)
            if merged <= MAX_PTES_SHARED and free <= MAX_PTES_NONE:
                memory.collapse(huge)
                self.collapses += 1

    def _next_ranges(self, guests: Sequence[HugeRanges]) -> list[tuple[HugeRanges, int]]:
        found: list[tuple[HugeRanges, int]] = []
        for memory, begin in self._round(guests):
            for huge in memory.split_ones(begin):
                if len(found) == RANGES:
                    return found
                found.append((memory, huge))
                self._huge = huge + 1
        return found

    def _round(self, guests: Sequence[HugeRanges]) -> Iterator[tuple[HugeRanges, int]]:
        """Yields each guest once, beginning where it was, with the first huge page to look at."""
        for _ in range(len(guests)):
            self._guest %= len(guests)
            yield guests[self._guest], self._huge
            self._guest, self._huge = self._guest + 1, 0
