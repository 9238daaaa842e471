"""Counts how many known pages are equal to others, in small steps: a large host has hundreds of millions. Pure."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ksmtuned_py.scanner.pages import LEAST, ZERO, Prints, contains, repeated
from ksmtuned_py.scanner.table import Table

AT_ONCE = 1 << 20
"""Prints that are sorted in one step, which takes some 0.1 s."""
_MOST_CUTS = 16
"""The range of prints is cut into at most so many parts, and only one part is copied at a time."""
_COMPARED_PER_PAGE, _SORTED_PER_PAGE = 1024, 16
"""How many prints are compared, or sorted, in the time in which one page is read."""
_END = 2**64
_NO_PRINTS: Prints = np.empty(0, np.uint64)
_NO_COPIES = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted over guests that may share pages with each other."""

    prints: Prints
    """Prints that occur more than once, ascending; at most as many as the caller wants kept."""
    pages: list[int]
    """For each guest, how many steady pages are zero or equal to another one."""


def count(tables: list[Table], most_kept: int) -> Generator[int, None, Counted]:
    """Counts step by step; yields each step's work, in pages that could have been read meanwhile, and at least 1."""
    pages = [0] * len(tables)
    kept: list[Prints] = [_NO_PRINTS]
    known = sum(table.pages for table in tables)
    for low, high in _cuts(LEAST, _END, min(_MOST_CUTS, 1 + known // AT_ONCE)):
        parts = yield from _steady(tables, low, high)
        size = sum(len(part.prints) for part in parts)
        for least, end in _cuts(low, high, 1 + size // AT_ONCE):
            some = [part.between(least, end) for part in parts]
            again = repeated([array for part in some for array in (part.prints, part.prints[part.copies > 1])])
            for number, part in enumerate(some):
                pages[number] += int(part.copies[contains(again, part.prints)].sum())
            kept.append(again[:most_kept])
            most_kept -= len(kept[-1])
            yield 1 + sum(len(part.prints) for part in some) // _SORTED_PER_PAGE + size // _COMPARED_PER_PAGE
    for number, table in enumerate(tables):
        pages[number] += yield from _zeros(table)
    return Counted(np.concatenate(kept), pages)


def first_of_each(
    prints: Prints, places: NDArray[np.uint32]
) -> Generator[int, None, tuple[Prints, NDArray[np.uint32]]]:
    """Returns each print but those of zeros once, ascending, and its first place; yields the work of each step."""
    found, first = [_NO_PRINTS], [np.empty(0, np.uint32)]
    for low, end in _cuts(LEAST, _END, 1 + len(prints) // AT_ONCE):
        chosen = _between(prints, low, end)
        some, index = np.unique(prints[chosen], return_index=True)
        found.append(some)
        first.append(places[chosen][index])
        yield 1 + len(some) // _SORTED_PER_PAGE + len(prints) // _COMPARED_PER_PAGE
    return np.concatenate(found), np.concatenate(first)


@dataclass(frozen=True, slots=True)
class _Part:
    """A guest's prints, each only once for a slab, because one content may fill all memory."""

    prints: Prints
    copies: NDArray[np.int32]

    def between(self, low: int, end: int) -> "_Part":
        """Returns the prints in the range."""
        chosen = _between(self.prints, low, end)
        return _Part(self.prints[chosen], self.copies[chosen])


def _steady(tables: list[Table], low: int, end: int) -> Generator[int, None, list[_Part]]:
    """Returns the prints of each guest's steady pages in that range."""
    found = []
    for table in tables:
        prints, copies = [_NO_PRINTS], [_NO_COPIES]
        for slab in table.slabs.values():
            some, counts = np.unique(slab.prints[slab.steady & _between(slab.prints, low, end)], return_counts=True)
            prints.append(some)
            copies.append(counts.astype(np.int32))
            yield 1 + len(slab.pages) // _COMPARED_PER_PAGE
        found.append(_Part(np.concatenate(prints), np.concatenate(copies)))
    return found


def _zeros(table: Table) -> Generator[int, None, int]:
    found = 0
    for slab in table.slabs.values():
        found += int(np.count_nonzero(slab.steady & (slab.prints == ZERO)))
        yield 1 + len(slab.pages) // _COMPARED_PER_PAGE
    return found


def _between(prints: Prints, low: int, end: int) -> NDArray[np.bool_]:
    return (prints >= np.uint64(low)) & (prints <= np.uint64(end - 1))


def _cuts(low: int, end: int, pieces: int) -> Iterator[tuple[int, int]]:
    """Cuts the range into so many equal parts."""
    for piece in range(pieces):
        yield low + (end - low) * piece // pieces, low + (end - low) * (piece + 1) // pieces
