"""Tells which pages of a store may be used again, so that it does not grow for ever. Pure."""

from bisect import bisect_left, insort
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Pages = NDArray[np.bool_]


class FreePages:
    """Pages that hold nothing and that no mapping covers in two looks in a row; the second sees new forks.

    A page to which a guest has written is still covered: if the guest discards its copy, it sees the page below.
    """

    def __init__(self) -> None:
        self._empty: Pages = np.zeros(0, np.bool_)
        self._free: list[tuple[int, int]] = []
        """Length and begin of each free stretch, ascending."""

    def take_in(self, taken: Pages) -> int:
        """Takes in a new look, and returns how many pages the store has without the free ones at its end."""
        before = np.zeros(len(taken), np.bool_)
        known = min(len(taken), len(self._empty))
        before[:known] = self._empty[:known]
        free = ~taken & before
        end = int(np.flatnonzero(~free)[-1]) + 1 if not free.all() else 0
        self._empty = ~taken[:end]
        edges = _edges(free[:end])
        begins, lengths = edges[::2], edges[1::2] - edges[::2]
        order = np.lexsort((begins, lengths))
        self._free = list(zip(lengths[order].tolist(), begins[order].tolist(), strict=True))
        return end

    def take(self, pages: int) -> int | None:
        """Takes so many free pages in a row, and returns the first one; None when there are none."""
        at = bisect_left(self._free, (pages, 0))
        if at == len(self._free):
            return None
        length, begin = self._free.pop(at)
        if length > pages:
            insort(self._free, (length - pages, begin + pages))
        return begin


def stretches(chosen: Pages) -> Iterator[tuple[int, int]]:
    """Yields the begin and the end of each row of chosen pages."""
    edges = _edges(chosen).tolist()
    return zip(edges[::2], edges[1::2], strict=True)


def _edges(chosen: Pages) -> NDArray[np.intp]:
    """Returns where rows of chosen pages begin and end, in turn."""
    return np.flatnonzero(np.diff(np.concatenate(([False], chosen, [False])).astype(np.int8)))
