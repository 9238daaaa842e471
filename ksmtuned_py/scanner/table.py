"""Remembers each page between two passes, in 11 bytes, and in 2 more for a zero page that was paged out."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ksmtuned_py.scanner.pagemap import PAGE, Runs, page_numbers
from ksmtuned_py.scanner.pages import UNREAD, ZERO, Prints

SLAB_PAGES = 65536
"""So large that a page's number in its slab fits into 16 bits."""
SLAB_BYTES = SLAB_PAGES * PAGE
"""256 MiB of addresses."""
BLOCK_PAGES = 256
"""So large that a block (1 MiB) stays in the second-level cache between reading, zero test and hash."""
HUGE_PAGES = PAGE // 8
"""The pages that one table of page table entries maps: 2 MiB."""
PAGE_TABLE_BYTES = 11
PageNumbers = NDArray[np.uint16]
_NO_PAGES: PageNumbers = np.empty(0, np.uint16)
_PERIODS = np.array((1, 1, 2, 3, 5, 9), np.uint16)
"""By a page's age, in how many passes it is read once. As in ksmd's smart_scan, 1, 2, 4, then 8 are skipped."""


@dataclass(slots=True)
class Slab:
    """The pages of one 256 MiB window of a guest's addresses."""

    base: int
    pages: PageNumbers = field(default_factory=_NO_PAGES.copy)
    """Numbers of the pages, ascending."""
    prints: Prints = field(default_factory=lambda: np.empty(0, np.uint64))
    ages: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    """How often in a row a page was read and was the same as before."""
    paged_out: PageNumbers = field(default_factory=_NO_PAGES.copy)

    def relist(self, pages: PageNumbers) -> None:
        """Takes over which pages are in memory now: keeps what is known of them, and forgets all others."""
        if len(pages) == len(self.pages) and (pages == self.pages).all():
            return
        prints, ages = np.full(SLAB_PAGES, UNREAD, np.uint64), np.zeros(SLAB_PAGES, np.uint8)
        prints[self.pages], ages[self.pages] = self.prints, self.ages
        self.pages, self.prints, self.ages = pages, prints[pages], ages[pages]

    def due(self, pass_number: int, *, smart: bool) -> NDArray[np.intp]:
        """Returns the places in `pages` that this pass reads; pages that have not changed for long are mostly skipped.

        Each block has a turn of its own, so that no pass has to read everything that is old.
        """
        if not smart:
            return np.arange(len(self.pages))
        turns = (self.pages // BLOCK_PAGES + np.uint16(pass_number % SLAB_PAGES)) % _PERIODS[self.ages]
        return np.flatnonzero(turns == 0)

    def saw(self, places: NDArray[np.intp], prints: Prints) -> NDArray[np.bool_]:
        """Takes over the prints that were read there, and returns which pages are the same as before."""
        same: NDArray[np.bool_] = (prints == self.prints[places]) & (prints != UNREAD)
        self.ages[places] = np.where(same, np.minimum(self.ages[places] + 1, len(_PERIODS) - 1), 0)
        self.prints[places] = prints
        return same

    def zeros_near(self, pages: PageNumbers) -> PageNumbers:
        """Returns these pages of zeros, and all others in the same huge pages that are not known to be paged out."""
        first, last = (int(page) // HUGE_PAGES * HUGE_PAGES for page in (pages[0], pages[-1]))
        begin, end = np.searchsorted(self.pages, (first, last + HUGE_PAGES))
        zeros = self.pages[begin:end][self.prints[begin:end] == ZERO]
        return np.union1d(pages, zeros[~np.isin(zeros, self.paged_out)])

    @property
    def steady(self) -> NDArray[np.bool_]:
        """Which pages were the same in two reads in a row: only these may be merged."""
        found: NDArray[np.bool_] = self.ages > 0
        return found

    @property
    def bytes(self) -> int:
        """Bytes of memory that the arrays take."""
        return self.pages.nbytes + self.prints.nbytes + self.ages.nbytes + self.paged_out.nbytes


class Table:
    """The slabs of one guest, by base address."""

    def __init__(self) -> None:
        self.slabs: dict[int, Slab] = {}
        self.left_out_pages = 0
        """Pages that the last pass left out for want of space in the tables."""

    def slab(self, base: int) -> Slab:
        """Returns the slab of that window; it is empty when it is new."""
        return self.slabs.setdefault(base, Slab(base))

    def keep_only(self, bases: set[int]) -> None:
        """Forgets the windows in which nothing is mapped any more."""
        for base in self.slabs.keys() - bases:
            del self.slabs[base]

    @property
    def pages(self) -> int:
        """The number of pages that it knows."""
        return sum(len(slab.pages) for slab in self.slabs.values())

    @property
    def bytes(self) -> int:
        """Bytes of memory that the arrays take."""
        return sum(slab.bytes for slab in self.slabs.values())


def windows(ranges: list[tuple[int, int]]) -> dict[int, list[tuple[int, int]]]:
    """Cuts address ranges at the windows' borders; returns them by window base, ascending."""
    cut: dict[int, list[tuple[int, int]]] = {}
    for start, end in ranges:
        for base in range(start - start % SLAB_BYTES, end, SLAB_BYTES):
            cut.setdefault(base, []).append((max(start, base), min(end, base + SLAB_BYTES)))
    return cut


def numbers(found: Runs, base: int) -> PageNumbers:
    """Returns the numbers of the pages that lie in the window at base."""
    return page_numbers(found, base).astype(np.uint16)


def chunks(found: Runs, most_pages: int) -> Iterator[Runs]:
    """Returns these pages, so many at a time."""
    most = most_pages * PAGE
    batch: list[tuple[int, int]] = []
    space = most
    for start, end in found.tolist():
        while start < end:
            stop = min(end, start + space)
            batch.append((start, stop))
            space -= stop - start
            start = stop
            if space == 0:
                yield np.array(batch, np.uint64)
                batch, space = [], most
    if batch:
        yield np.array(batch, np.uint64)
