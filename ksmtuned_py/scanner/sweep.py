"""Makes one pass over one guest: reads its private pages in steps of at most 1 MiB, and remembers their prints."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ksmtuned_py.guests.mappings import candidates
from ksmtuned_py.scanner.pagemap import PAGE, Kind, joined, page_count
from ksmtuned_py.scanner.pages import UNREAD, ZERO, Prints, prints
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.table import BLOCK_PAGES, PageNumbers, Slab, Table, numbers, windows

_LISTED_PER_PAGE = 64
"""How many pages are listed in the time in which one is read: 40 ns each, against 2 to 3 us."""
_MOST_BYTES = 16 << 40
"""The most private memory that is looked through, be it empty: that takes up to two seconds, and less than 100 MiB."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step has done, and where."""

    work: int
    """Work in pages that could have been read meanwhile; at least 1."""
    slab: Slab | None = None
    zeros: PageNumbers | None = None
    """Pages read in this step that are zero and were so before; None when the slab was only listed."""


class Sweep:
    """Reads guests into their tables; counts what it read and what it left out."""

    def __init__(self) -> None:
        self.pages_scanned = 0
        self.pages_skipped = 0
        self.pass_number = 0
        self.free_pages = sys.maxsize
        """How many more pages the tables may take in."""
        self._buffer = memoryview(bytearray(BLOCK_PAGES * PAGE))

    def guest(self, process: Process, table: Table, kind: Kind, *, smart: bool) -> Iterator[Step]:
        """Makes the pass, yielding each step; raises Gone, and Refused when there is too much to look through.

        A line of the guest's mappings counts as much as a page.
        """
        mappings = process.mappings()
        yield Step(1 + len(mappings))
        private = candidates(mappings)
        table.left_out_pages = 0
        if sum(end - start for start, end in private) > _MOST_BYTES:
            table.keep_only(set())
            raise Refused("it has more than 16 TiB of addresses, which nobody looks through for pages")
        cut = windows(private)
        table.keep_only(set(cut))
        for base, ranges in cut.items():
            slab = table.slab(base)
            listed = pages_in(process, base, ranges, kind)
            if len(listed) - len(slab.pages) > self.free_pages:
                table.left_out_pages += len(listed)
                listed = listed[:0]
            self.free_pages -= len(listed) - len(slab.pages)
            slab.relist(listed)
            if not slab.bytes:  # most of what a guest sets aside may be empty
                del table.slabs[base]
            yield Step(1 + len(listed) // _LISTED_PER_PAGE, slab)
            yield from self._fill(process, slab, kind, slab.due(self.pass_number, smart=smart))

    def _fill(self, process: Process, slab: Slab, kind: Kind, due: NDArray[np.intp]) -> Iterator[Step]:
        """Reads the pages that are due, block by block."""
        self.pages_skipped += len(slab.pages) - len(due)
        begin = 0
        for pages in blocks(slab.pages[due]):
            places = due[begin : begin + len(pages)]
            found = read_block(process, slab.base, pages, kind, self._buffer)
            same = slab.saw(places, found)
            begin += len(pages)
            self.pages_scanned += len(pages)
            yield Step(len(pages), slab, pages[same & (found == ZERO)])


def pages_in(process: Process, base: int, ranges: list[tuple[int, int]], kind: Kind) -> PageNumbers:
    """Returns the pages of that kind in the ranges of a window, ascending; raises Gone.

    A mapping that changes while the list is being read can be in it twice.
    """
    found = [runs for start, end in ranges if len(runs := process.runs(start, end, kind))]
    return np.unique(numbers(np.concatenate(found), base)) if found else np.empty(0, np.uint16)


def blocks(pages: PageNumbers) -> list[PageNumbers]:
    """Cuts ascending pages of a window at the borders of blocks."""
    if not len(pages):
        return []
    cut: list[PageNumbers] = np.split(pages, np.flatnonzero(np.diff(pages // BLOCK_PAGES)) + 1)
    return cut


def read_block(process: Process, base: int, pages: PageNumbers, kind: Kind, buffer: memoryview) -> Prints:
    """Returns the prints of pages of one block; raises Gone.

    The pages are listed once more: reading one that was swapped out meanwhile would fetch it from swap.
    """
    start, end = (base + page * PAGE for page in (int(pages[0]), int(pages[-1]) + 1))
    runs = process.runs(start, end, kind)
    if page_count(runs) == len(pages) == (end - start) // PAGE:  # the usual case: all pages are still there
        block = buffer[: end - start]
        return prints(block) if process.read_pages(runs, block) else np.full(len(pages), UNREAD, np.uint64)
    found = np.full(len(pages), UNREAD, np.uint64)
    there = np.isin(pages, numbers(runs, base), assume_unique=True)
    block = buffer[: int(np.count_nonzero(there)) * PAGE]
    if len(block) and process.read_pages(joined(pages[there], base), block):
        found[there] = prints(block)
    return found
