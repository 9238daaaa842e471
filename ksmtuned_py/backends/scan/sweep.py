"""One pass over one guest: its private pages are read and their prints remembered, in steps of at most 1 MiB."""

from collections.abc import Iterator

import numpy as np

from ksmtuned_py.backends.scan.mappings import candidates
from ksmtuned_py.backends.scan.pagemap import PAGE, Kind, Runs, page_count
from ksmtuned_py.backends.scan.pages import UNREAD, Prints, prints
from ksmtuned_py.backends.scan.process import Process
from ksmtuned_py.backends.scan.table import Slab, Table, chunks, numbers, windows

STEP_PAGES = 256
"""1 MiB at a time: it stays in the second-level cache between reading, zero test and hash; 0.3 ms of work."""


class Sweep:
    """Reads guests into their tables; counts what it read and what it left out."""

    def __init__(self) -> None:
        self.pages_scanned = 0
        self.pages_skipped = 0
        self._buffer = memoryview(bytearray(STEP_PAGES * PAGE))

    def guest(self, process: Process, table: Table, kind: Kind, *, smart: bool) -> Iterator[Slab | int]:
        """Yields the work of each step in pages, at least 1, and each slab once it is complete; raises Gone.

        A line of its mappings takes as long as a page.
        """
        mappings = process.mappings()
        yield 1 + len(mappings)
        cut = windows(candidates(mappings))
        table.keep_only(set(cut))
        for base, ranges in cut.items():
            slab = table.slab(base)
            if smart and slab.skip():
                self.pages_skipped += len(slab.pages)
            else:
                yield from self._fill(process, slab, ranges, kind)
                yield slab

    def _fill(self, process: Process, slab: Slab, ranges: list[tuple[int, int]], kind: Kind) -> Iterator[int]:
        found = np.concatenate([process.runs(start, end, kind) for start, end in ranges])
        parts: list[Prints] = []
        for chunk in chunks(found, STEP_PAGES):
            parts.append(self._prints(process, chunk))
            self.pages_scanned += len(parts[-1])
            yield len(parts[-1])
        slab.update(numbers(found, slab.base), np.concatenate(parts) if parts else np.empty(0, np.uint64))

    def _prints(self, process: Process, chunk: Runs) -> Prints:
        block = self._buffer[: page_count(chunk) * PAGE]
        if process.read_pages(chunk, block):
            return prints(block)
        return np.full(len(block) // PAGE, UNREAD, np.uint64)
