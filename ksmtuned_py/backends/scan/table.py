"""What is remembered of each page between two passes: 11 bytes, and 2 for a zero page that was paged out."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ksmtuned_py.backends.scan.pagemap import PAGE, Runs, page_numbers
from ksmtuned_py.backends.scan.pages import UNREAD, ZERO, Prints

SLAB_BYTES = 65536 * PAGE
"""256 MiB of addresses: a page's number in it fits 16 bits."""
PageNumbers = NDArray[np.uint16]
_NO_PAGES: PageNumbers = np.empty(0, np.uint16)
_SKIP_AFTER = 2
_MOST_SKIPS = 8
"""As ksmd's smart_scan: what does not change is looked at again after 1, 2, 4, then every 8 passes."""


@dataclass(slots=True)
class Slab:
    """The pages of one 256 MiB window of a guest's addresses."""

    base: int
    pages: PageNumbers = field(default_factory=_NO_PAGES.copy)
    """Ascending."""
    prints: Prints = field(default_factory=lambda: np.empty(0, np.uint64))
    steady: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    """Same print as in the pass before: only these may be merged."""
    paged_out: PageNumbers = field(default_factory=_NO_PAGES.copy)
    unchanged_passes: int = 0
    skips: int = 0

    def update(self, pages: PageNumbers, prints: Prints) -> None:
        """Takes over what a pass has read."""
        same_pages = len(pages) == len(self.pages) and bool((pages == self.pages).all())
        before = self.prints if same_pages else self._prints_of(pages)
        self.steady = (prints == before) & (prints != UNREAD)
        self.pages, self.prints = pages, prints
        unchanged = same_pages and bool(self.steady.all())
        self.unchanged_passes = self.unchanged_passes + 1 if unchanged else 0
        quiet = self.unchanged_passes - _SKIP_AFTER
        self.skips = min(_MOST_SKIPS, 1 << quiet) if quiet >= 0 else 0

    def skip(self) -> bool:
        """Whether this pass may leave the slab out, because it has not changed for a while."""
        self.skips -= 1
        return self.skips >= 0

    def steady_prints(self) -> Prints:
        """The prints that may be merged; with those of zero pages."""
        return self.prints[self.steady]

    def steady_zeros(self) -> PageNumbers:
        """The pages that were zero in two passes."""
        zeros: PageNumbers = self.pages[self.steady & (self.prints == ZERO)]
        return zeros

    @property
    def bytes(self) -> int:
        """Memory the arrays take."""
        return self.pages.nbytes + self.prints.nbytes + self.steady.nbytes + self.paged_out.nbytes

    def _prints_of(self, pages: PageNumbers) -> Prints:
        if not len(self.pages):
            return np.full(len(pages), UNREAD, np.uint64)
        places = np.searchsorted(self.pages, pages)
        places[places == len(self.pages)] = 0
        return np.where(self.pages[places] == pages, self.prints[places], np.uint64(UNREAD))


class Table:
    """The slabs of one guest, by base address."""

    def __init__(self) -> None:
        self.slabs: dict[int, Slab] = {}

    def slab(self, base: int) -> Slab:
        """The slab of that window, empty when it is new."""
        return self.slabs.setdefault(base, Slab(base))

    def keep_only(self, bases: set[int]) -> None:
        """Forgets the windows in which nothing is mapped any more."""
        for base in self.slabs.keys() - bases:
            del self.slabs[base]

    @property
    def bytes(self) -> int:
        """Memory the arrays take."""
        return sum(slab.bytes for slab in self.slabs.values())


def windows(ranges: list[tuple[int, int]]) -> dict[int, list[tuple[int, int]]]:
    """Address ranges cut at the windows' borders, by window base, ascending."""
    cut: dict[int, list[tuple[int, int]]] = {}
    for start, end in ranges:
        for base in range(start - start % SLAB_BYTES, end, SLAB_BYTES):
            cut.setdefault(base, []).append((max(start, base), min(end, base + SLAB_BYTES)))
    return cut


def numbers(found: Runs, base: int) -> PageNumbers:
    """The pages of runs that lie in the window at base."""
    return page_numbers(found, base).astype(np.uint16)


def chunks(found: Runs, most_pages: int) -> Iterator[Runs]:
    """The same pages, so many at a time."""
    most = most_pages * PAGE
    batch: list[tuple[int, int]] = []
    room = most
    for start, end in found.tolist():
        while start < end:
            stop = min(end, start + room)
            batch.append((start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield np.array(batch, np.uint64)
                batch, room = [], most
    if batch:
        yield np.array(batch, np.uint64)
