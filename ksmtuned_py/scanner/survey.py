"""Reads every page of some guests once, for an estimate of what merging could save; nothing is changed."""

from collections.abc import Callable, Iterator

import numpy as np

from ksmtuned_py.door import Door, not_permitted
from ksmtuned_py.scanner.estimate import Sample
from ksmtuned_py.scanner.pagemap import PAGE, PRIVATE, page_count
from ksmtuned_py.scanner.pages import LEAST, UNREAD, ZERO, Prints, chosen, contains, repeated
from ksmtuned_py.scanner.process import Gone, Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.sweep import blocks, pages_in, read_block
from ksmtuned_py.scanner.table import BLOCK_PAGES, windows
from ksmtuned_py.scanner.target import Target

ADDRESS_SHARE = 1 / 20
"""The share of all pages, chosen by address, that are read beforehand."""
Tell = Callable[[int, int], None]
"""Called with the pages read so far, and the pages in all."""


def survey(targets: list[Target], share: float, door: Door, tell: Tell) -> list[Sample]:
    """Returns a sample of that share of contents for each guest still there; raises NotPermitted, Unreadable.

    A content with very many copies would be in such a sample by chance only, and decide everything. So contents of
    which two copies are in a sample of addresses are counted one by one.
    """
    there = {target: pages for target in targets if (pages := _page_count(target, door)) is not None}
    pages, done = sum(there.values()), 0
    common = _common(list(there), door) if share < 1 else np.empty(0, np.uint64)
    samples = []
    for target in there:
        sample = _Sampler(target, share, common)
        for found in _read(target, door):
            sample.add(found)
            tell(done + sample.seen_pages, pages)
        done += there[target]
        samples.append(sample.done())
    return samples


class _Sampler:
    """What is kept of one guest while it is read."""

    def __init__(self, target: Target, share: float, common: Prints) -> None:
        self._target = target
        self._share = share
        self._common = common
        self._copies = np.zeros(len(common), np.int64)
        self._parts: list[Prints] = [np.empty(0, np.uint64)]
        self._zero_pages = 0
        self.seen_pages = 0

    def add(self, found: Prints) -> None:
        """Adds some of the guest's pages."""
        self.seen_pages += int(np.count_nonzero(found != UNREAD))
        self._zero_pages += int(np.count_nonzero(found == ZERO))
        is_common = contains(self._common, found)
        np.add.at(self._copies, np.searchsorted(self._common, found[is_common]), 1)
        self._parts.append(chosen(found[~is_common], self._share))

    def done(self) -> Sample:
        """Returns the guest's sample, once all of its pages were added."""
        having = self._copies > 0
        return Sample(
            name=self._target.name,
            pid=self._target.pid,
            group=self._target.group,
            zero_pages=self._zero_pages,
            filled_pages=self.seen_pages - self._zero_pages,
            prints=np.concatenate(self._parts),
            common=self._common[having],
            common_copies=self._copies[having],
        )


def _common(targets: list[Target], door: Door) -> Prints:
    """Returns the contents of which two copies are in a sample of addresses, sorted."""
    chance = np.random.default_rng(1)
    parts = [found[found >= LEAST] for target in targets for found in _read(target, door, chance)]
    return repeated(parts)


def _read(target: Target, door: Door, chance: np.random.Generator | None = None) -> Iterator[Prints]:
    """Yields the prints of all its pages, or of some addresses, some at a time; ends when the process does."""
    buffer = memoryview(bytearray(BLOCK_PAGES * PAGE))
    try:
        with _opened(target, door) as process:
            for base, ranges in windows(process.ranges()).items():
                pages = pages_in(process, base, ranges, PRIVATE)
                if chance:
                    pages = pages[chance.random(len(pages)) < ADDRESS_SHARE]
                for block in blocks(pages):
                    yield read_block(process, base, block, PRIVATE, buffer)
    except Gone:
        return


def _page_count(target: Target, door: Door) -> int | None:
    """Returns the number of its pages; None when it has ended."""
    try:
        with _opened(target, door) as process:
            return sum(page_count(process.runs(start, end, PRIVATE)) for start, end in process.ranges())
    except Gone:
        return None


def _opened(target: Target, door: Door) -> Process:
    try:
        return Process(target, door)
    except Refused:
        raise not_permitted(door.path(f"proc/{target.pid}/mem"), "read it") from None
