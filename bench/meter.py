"""Measures from within a guest how fast its memory is, and how long a first write, a read and a timer take."""

import time
from dataclasses import dataclass, field
from statistics import median
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bench.contents import HUGE_PAGES, PAGE_WORDS, Area, GuestMemory

Indices: TypeAlias = NDArray[np.int64]

TURN_SECONDS = 0.001
"""The length of a turn. What a core gets done may double within 20 ms, where others are at work on the machine.

Turns of 0.25 s told 0.6 to 1.2 of memory that nobody had touched, and these tell 0.99 to 1.01.
"""
COMPARED_SECONDS = 0.5
WAITS_SECONDS = 0.25
BATCH = 8192
"""Random reads in one call: what Python takes for the call is then nothing beside them."""
TIMER_SECONDS = 0.001
READS_A_WRITE = 8
"""First writes are rare, because each takes a merged page back."""
QUANTILES = (0.5, 0.99, 0.999)


class Reader:
    """Reads words of an area at random, a batch at a time."""

    def __init__(self, area: Area, blocks: NDArray[np.int64]) -> None:
        """`blocks` are the huge pages that it reads from."""
        self._words = area.words
        self._blocks = blocks
        self._random = np.random.default_rng()
        self._found = np.empty(BATCH, np.uint64)

    def read(self) -> float:
        """Reads a batch; returns the CPU-seconds that it took: time without a core says nothing of memory."""
        indices = self.places()
        begun = time.thread_time()
        np.take(self._words, indices, out=self._found, mode="clip")
        return time.thread_time() - begun

    def places(self) -> Indices:
        """Returns random indices of words."""
        block = self._blocks[self._random.integers(0, len(self._blocks), BATCH)]
        found: Indices = block * (HUGE_PAGES * PAGE_WORDS)
        found += self._random.integers(0, HUGE_PAGES * PAGE_WORDS, BATCH)
        return found

    def turn(self) -> float:
        """Reads for one turn; returns reads per CPU-second. Who had no core meanwhile reads one batch all the same."""
        until = time.perf_counter() + TURN_SECONDS
        seconds, batches = 0.0, 0
        while not batches or time.perf_counter() < until:
            seconds += self.read()
            batches += 1
        return BATCH * batches / seconds


@dataclass(slots=True)
class Waits:
    """How long each took, in seconds."""

    first_write: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    timer: list[float] = field(default_factory=list)

    def quantiles(self) -> dict[str, list[float]]:
        """Returns QUANTILES of each in microseconds; what was never measured is left out."""
        measured = {"first_write": self.first_write, "read": self.read, "timer": self.timer}
        return {
            name: [round(float(value) * 1e6, 2) for value in np.quantile(values, QUANTILES)]
            for name, values in measured.items()
            if values
        }


class Meter:
    """Compares a guest's memory, in turns, with as much memory that nobody merges, in the same process."""

    def __init__(self, memory: GuestMemory, reference_bytes: int) -> None:
        """A reference that is smaller than the memory is compared with as many of its huge pages, taken at random."""
        self._reference = Area(reference_bytes // (PAGE_WORDS * 8), mergeable=False)
        self._reference.fill()
        blocks = np.arange(self._reference.size_bytes // (HUGE_PAGES * PAGE_WORDS * 8))
        own = np.random.default_rng().permutation(memory.size_bytes // (HUGE_PAGES * PAGE_WORDS * 8))[: len(blocks)]
        self._own, self._whole = Reader(memory, own), Reader(self._reference, blocks)
        self._words = memory.words.data
        self._unwritten = _shuffled(np.concatenate((memory.equal, memory.zero)))
        self.waits = Waits()
        self.speeds: list[float] = []
        """Of each round: reads per CPU-second of the guest's memory over those of the reference."""

    def round(self) -> None:
        """Compares the two, and measures waits for a while."""
        self.speeds.append(self._compared())
        self._wait()

    def _compared(self) -> float:
        """Returns the reads per CPU-second of the one over those of the other, in the middle of many short turns."""
        until, found = time.perf_counter() + COMPARED_SECONDS, []
        while time.perf_counter() < until:
            found.append(self._own.turn() / self._whole.turn())
            found.append(1 / (self._whole.turn() / self._own.turn()))
        return median(found)

    def _wait(self) -> None:
        until = time.perf_counter() + WAITS_SECONDS
        for number, place in enumerate(self._own.places().tolist()):
            begun = time.perf_counter()
            if begun > until:
                return
            time.sleep(TIMER_SECONDS)
            woken = time.perf_counter()
            _ = self._words[place]
            done = time.perf_counter()
            self.waits.timer.append(woken - begun - TIMER_SECONDS)
            self.waits.read.append(done - woken)
            if number % READS_A_WRITE == 0 and self._unwritten:
                self._write_first(self._unwritten.pop() * PAGE_WORDS + place % PAGE_WORDS)

    def _write_first(self, index: int) -> None:
        """Writes what is there to a page that was not written to yet: its content stays, its merging ends."""
        word = self._words[index]
        begun = time.perf_counter()
        self._words[index] = word
        self.waits.first_write.append(time.perf_counter() - begun)


def _shuffled(places: Indices) -> list[int]:
    found: list[int] = np.random.default_rng().permutation(places).tolist()
    return found
