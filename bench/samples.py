"""Samples what is there while a manager is at work: the machine ten times a second, and the knobs more often."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

from ksmtuned_py.backends.kernel import KernelBackend
from ksmtuned_py.door import Door
from ksmtuned_py.sensors.memory import read_memory
from ksmtuned_py.sensors.vmstat import read_vmstat

SAMPLE_SECONDS = 0.1
SAMPLES_MOST = 1200
"""Longer runs are sampled less often."""
LOOK_SECONDS = 0.02
"""Time between two looks at the knobs: a reaction is known this well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The machine at one moment."""

    seconds: float
    """Seconds since the load began."""
    saved_bytes: int
    """With what splits of huge pages freed."""
    possible_bytes: int
    """What could be saved now at best."""
    profit_bytes: int
    """Saved bytes less the kernel's bookkeeping; signed."""
    available_bytes: int
    ksmd_cpu_seconds: float
    """CPU time of ksmd since the load began."""
    passes: int
    """Passes since the load began."""
    guests: int
    split_pages: int
    """Huge pages of this machine that were split since the load began."""
    huge_bytes: int
    """Private memory of the whole machine in huge pages."""
    run: int
    pages_to_scan: int
    sleep_millisecs: int
    smart_scan: int


class Loaded(Protocol):
    """The guests of whom the samples are."""

    def possible(self) -> tuple[int, int]:
        """Returns what could be saved now at best, in bytes, and how many guests there are."""

    def freed_bytes(self) -> int:
        """Returns what splits of huge pages freed."""


class Sampler:
    """Takes samples in a thread of its own, for the length of a with block."""

    def __init__(self, seconds: float, load: Loaded, tell: Callable[[Sample], None]) -> None:
        """`tell` is told each sample."""
        self.samples: list[Sample] = []
        self.reaction_seconds: float | None = None
        """Time until the knobs changed for the first time."""
        self._every_seconds = max(SAMPLE_SECONDS, seconds / SAMPLES_MOST)
        self._load = load
        self._tell = tell
        self._backend = KernelBackend(Door())
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler")

    def __enter__(self) -> Self:
        self._knobs_at_first = self._rate()
        self._begun = time.monotonic()
        self._cpu_at_first = self._backend.scanner_cpu_seconds() or 0.0
        self._passes_at_first = self._backend.counters().full_scans
        self._splits_at_first = split_pages()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            self.samples.append(self._sample())
            self._tell(self.samples[-1])
            due = self._begun + len(self.samples) * self._every_seconds
            while not self._end.wait(min(LOOK_SECONDS, max(0.0, due - time.monotonic()))) and time.monotonic() < due:
                self._watch()

    def _watch(self) -> None:
        if self.reaction_seconds is None and self._rate() != self._knobs_at_first:
            self.reaction_seconds = time.monotonic() - self._begun

    def _rate(self) -> tuple[int | None, ...]:
        knobs = self._backend.knobs()
        return knobs.run, knobs.pages_to_scan, knobs.sleep_millisecs, knobs.smart_scan

    def _sample(self) -> Sample:
        counters, knobs = self._backend.counters(), self._backend.knobs()
        possible_bytes, guests = self._load.possible()
        memory = read_memory(Door())
        return Sample(
            seconds=time.monotonic() - self._begun,
            saved_bytes=counters.saved_pages * self._backend.page_bytes + self._load.freed_bytes(),
            possible_bytes=possible_bytes,
            profit_bytes=counters.general_profit or 0,
            available_bytes=memory.available_bytes,
            ksmd_cpu_seconds=(self._backend.scanner_cpu_seconds() or 0.0) - self._cpu_at_first,
            passes=counters.full_scans - self._passes_at_first,
            guests=guests,
            split_pages=split_pages() - self._splits_at_first,
            huge_bytes=memory.anon_huge_bytes,
            run=knobs.run or 0,
            pages_to_scan=knobs.pages_to_scan or 0,
            sleep_millisecs=knobs.sleep_millisecs or 0,
            smart_scan=knobs.smart_scan or 0,
        )


def split_pages() -> int:
    """Returns how many huge pages were split since boot; 0 on a kernel without them."""
    return read_vmstat(Door()).thp_split_page or 0
