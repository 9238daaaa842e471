"""Keeps a row of things that mostly equal their neighbours as runs: its cost is the runs, not the things. Pure."""

from bisect import bisect_left, bisect_right
from typing import Generic, TypeVar

T = TypeVar("T")


class Runs(Generic[T]):
    """A row of `length` things, in which equal neighbours always form one run."""

    def __init__(self, length: int, value: T) -> None:
        self.length = length
        self._begins = [0]
        self._values = [value]

    def __len__(self) -> int:
        """The number of runs."""
        return len(self._values)

    def at(self, index: int) -> tuple[int, T]:
        """Returns the end of the run that an index is in, and its value."""
        run = bisect_right(self._begins, index) - 1
        return self._end(run), self._values[run]

    def between(self, begin: int, end: int) -> list[tuple[int, int, T]]:
        """Returns the runs from begin to end as (begin, end, value), cut at both."""
        first, last = bisect_right(self._begins, begin) - 1, bisect_left(self._begins, end)
        return [
            (max(begin, self._begins[run]), min(end, self._end(run)), self._values[run]) for run in range(first, last)
        ]

    def put(self, begin: int, end: int, value: T) -> None:
        """Gives all from begin to end one value."""
        if begin >= end:
            return
        first, last = bisect_right(self._begins, begin) - 1, bisect_left(self._begins, end)
        pieces = [(self._begins[first], self._values[first])] if self._begins[first] < begin else []
        pieces.append((begin, value))
        if end < self._end(last - 1):
            pieces.append((end, self._values[last - 1]))
        # The neighbours take part, so that equal runs are joined.
        before = first - 1 if first else first
        after = min(last + 1, len(self._begins))
        pieces = [*self._pieces(before, first), *pieces, *self._pieces(last, after)]
        kept = [piece for number, piece in enumerate(pieces) if not number or piece[1] != pieces[number - 1][1]]
        self._begins[before:after] = [piece[0] for piece in kept]
        self._values[before:after] = [piece[1] for piece in kept]

    def grow(self, length: int, value: T) -> None:
        """Makes the row longer; the new things have the given value."""
        if length > self.length:
            begin, self.length = self.length, length
            self._begins.append(begin)
            self._values.append(value)
            self.put(begin, length, value)

    def _end(self, run: int) -> int:
        return self._begins[run + 1] if run + 1 < len(self._begins) else self.length

    def _pieces(self, first: int, last: int) -> list[tuple[int, T]]:
        return list(zip(self._begins[first:last], self._values[first:last], strict=True))
