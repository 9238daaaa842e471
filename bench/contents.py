"""The memory of a guest at work: in huge pages as QEMU's is, its content known, in long runs or thinly spread."""

import mmap
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ksmtuned_py.cli.workload import PAGE_BYTES, Mix, equal_block
from ksmtuned_py.units import KIB, MIB

Layout: TypeAlias = Literal["dense", "sparse"]
"""Dense is each kind of page in one row; sparse has runs of four pages, of which neighbours are of any kind."""
Words: TypeAlias = NDArray[np.uint64]
Places: TypeAlias = NDArray[np.int64]
"""Numbers of pages."""

HUGE_BYTES = 2 * MIB
HUGE_PAGES = HUGE_BYTES // PAGE_BYTES
PAGE_WORDS = PAGE_BYTES // 8
RUN_PAGES = 4
_STEP_PAGES = MIB // PAGE_BYTES


class Area:
    """Memory that asks for huge pages and begins where one does; like QEMU's, it asks before it is filled."""

    def __init__(self, pages: int, *, mergeable: bool) -> None:
        """`pages` is rounded up to whole huge pages."""
        self.size_bytes = -(-pages // HUGE_PAGES) * HUGE_BYTES
        self._mapped = mmap.mmap(-1, self.size_bytes + HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        begin = int(np.frombuffer(self._mapped, np.uint8).ctypes.data)
        skip = -begin % HUGE_BYTES
        self.address = begin + skip
        for advice in (mmap.MADV_HUGEPAGE, *([mmap.MADV_MERGEABLE] if mergeable else [])):
            with suppress(OSError):  # a kernel without huge pages, or without KSM
                self._mapped.madvise(advice, skip, self.size_bytes)
        self.words: Words = np.frombuffer(self._mapped, np.uint64, count=self.size_bytes // 8, offset=skip)
        self.pages: Words = self.words.reshape(-1, PAGE_WORDS)

    def fill(self) -> None:
        """Gives each page a content that no other page of any process has."""
        block = np.frombuffer(os.urandom(MIB), np.uint64).reshape(-1, PAGE_WORDS)
        for step in range(0, len(self.pages), _STEP_PAGES):
            self.pages[step : step + _STEP_PAGES] = block
            self.pages[step : step + _STEP_PAGES, 1] = np.arange(step, step + _STEP_PAGES, dtype=np.uint64)

    def in_memory(self, key: str) -> int:
        """Returns a figure of its mapping in /proc/self/smaps, in bytes: Rss, AnonHugePages."""
        return figure_of(Path("/proc/self/smaps").read_text(), self.address, key)


class GuestMemory(Area):
    """A guest's memory, filled."""

    def __init__(self, name: str, mix: Mix, layout: Layout) -> None:
        kinds = (mix.equal_bytes, mix.zero_bytes, mix.changing_bytes)
        counts = [size // PAGE_BYTES for size in kinds]
        super().__init__(sum(counts) + mix.unique_bytes // PAGE_BYTES, mergeable=True)
        order = pages_in_order(len(self.pages), layout, zlib.crc32(name.encode()))
        self.equal, self.zero, self.changing, _ = np.split(order, np.cumsum(counts))
        self._spoiled = self._changed = 0
        self.fill()
        self._fill_equal(mix.seed)
        for part in _steps(self.zero):
            self.pages[part] = 0

    def spoil(self, pages: int) -> int:
        """Gives the next equal pages a content that no page had before; returns how many they were."""
        places = self.equal[self._spoiled : self._spoiled + pages]
        self._rewrite(places)
        self._spoiled += len(places)
        return len(places)

    def rewrite(self, pages: int) -> None:
        """Gives the next of the changing pages, round and round, a content that no page had before."""
        count = min(pages, len(self.changing))
        if count:
            self._rewrite(self.changing.take(np.arange(self._changed, self._changed + count), mode="wrap"))
            self._changed += count

    def _rewrite(self, places: Places) -> None:
        self.pages[places, 1] = np.frombuffer(os.urandom(8 * len(places)), np.uint64)

    def _fill_equal(self, seed: int) -> None:
        block = np.frombuffer(equal_block(seed), np.uint64).reshape(-1, PAGE_WORDS)
        number = 0
        for part in _steps(self.equal):
            self.pages[part] = block[: len(part)]
            self.pages[part, 1] = np.arange(number, number + len(part), dtype=np.uint64)
            number += len(part)


def pages_in_order(pages: int, layout: Layout, seed: int) -> Places:
    """Returns all pages in the order in which kinds of content take them."""
    if layout == "dense":
        return np.arange(pages)
    runs = np.random.default_rng(seed).permutation(pages // RUN_PAGES)
    return (runs[:, np.newaxis] * RUN_PAGES + np.arange(RUN_PAGES)).ravel()


def figure_of(smaps: str, address: int, key: str) -> int:
    """Returns a figure of the mapping that has this address, in bytes; 0 where there is none."""
    inside = False
    for line in smaps.splitlines():
        word, *rest = line.split()
        if word.endswith(":"):
            if inside and word == f"{key}:":
                return int(rest[0]) * KIB
        else:
            begin, end = (int(part, 16) for part in word.split("-"))
            inside = begin <= address < end
    return 0


def _steps(places: Places) -> Iterator[Places]:
    """Yields so few at once that what numpy copies meanwhile stays small."""
    for step in range(0, len(places), _STEP_PAGES):
        yield places[step : step + _STEP_PAGES]
