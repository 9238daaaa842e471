"""The stage of one run: its clock, its guests, and the memory that somebody else uses."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from bench.ballast import Ballast
from bench.contents import Layout
from bench.guests import Guest, Task, WorkingGuest
from bench.qemuguests import QemuGuest
from ksmtuned_py.cli.workload import PAGE_BYTES, Mix, achievable_pages
from ksmtuned_py.door import Door
from ksmtuned_py.sensors.memory import read_memory
from ksmtuned_py.sensors.pressure import read_pressure
from ksmtuned_py.units import MIB
from tests.support.ksmlock import RealKsm
from tests.support.process import wait_for

FULL_SPEED = {"pages_to_scan": 100_000, "sleep_millisecs": 1, "run": 1}
"""Makes ksmd as fast as it can be: a batch of a tenth of a second, and one jiffy of sleep."""
PROCESS_BYTES, WORKING_BYTES = 12 * MIB, 40 * MIB
"""Memory that a workload process, and a guest at work, take beside their workload."""
BOOKKEEPING = 0.02
"""Share of memory for bookkeeping: 64 bytes for each page ksmd scans, and 8 for each mapped one, are 1.8 %."""
AGEING_SECONDS = 300.0
ROUNDS = 6
"""How often a guest compares its memory with whole memory at the end of a run, three quarters of a second each."""
CALM_SECONDS, CALM_PERCENT = 60.0, 1.0
"""A manager that heeds pressure must not see what was done before its turn, of which the kernel tells for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a load is."""

    guests: int
    guest_bytes: int
    seconds: float
    cap_bytes: int
    """Memory that density may use."""
    small_pages: bool = False
    """Whether guests have no huge pages, and so can say nothing of themselves."""
    layout: Layout = "dense"
    rounds: int = ROUNDS

    @property
    def all_bytes(self) -> int:
        """Memory of all guests."""
        return self.guests * self.guest_bytes

    @property
    def overhead_bytes(self) -> int:
        """Memory of the processes themselves, and of KSM's bookkeeping and page tables for all guests."""
        each = PROCESS_BYTES if self.small_pages else WORKING_BYTES
        return self.guests * each + round(self.all_bytes * BOOKKEEPING)


class Stage:
    """Has guests come and go in a with block; it is empty afterwards."""

    def __init__(self, ksm: RealKsm, size: Size) -> None:
        self.ksm = ksm
        self.size = size
        self.guests: list[Guest] = []
        self.goal: list[Mix] | None = None
        """The guests over which what could be merged is counted, where a load wants more than it has got so far."""
        self.short_seconds: float | None = None
        """The moment of the load at which somebody else had all the memory that it wanted."""
        self.relief_seconds: float | None = None
        """The moment at which that memory was given back."""
        self._begun = time.monotonic()
        self._started = 0
        self._ready = 0
        self._undo = ExitStack()
        self._sharing = ksm.number("max_page_sharing") or 256

    def begin(self) -> None:
        """Starts the load's clock; who is there goes to work."""
        self._begun = time.monotonic()
        for guest in self.guests:
            guest.go()

    def seconds_left(self) -> float:
        """Returns the time until the load ends."""
        return max(0.0, self._begun + self.size.seconds - time.monotonic())

    def every(self, seconds: float) -> Iterator[None]:
        """Yields once in so many seconds, until the load ends."""
        due = time.monotonic()
        while self.seconds_left():
            due += seconds
            time.sleep(max(0.0, min(due - time.monotonic(), self.seconds_left())))
            if self.seconds_left():
                yield

    def start(self, *mixes: Mix, tasks: Sequence[Task] = (), layout: Layout | None = None) -> None:
        """Starts guests all at once; returns when their memory is filled. Those without a task are calm."""
        calm: Task = "calm"
        given = [*tasks, *[calm] * len(mixes)]
        self._enter(self._guest(mix, task, layout or self.size.layout) for mix, task in zip(mixes, given, strict=False))

    def boot(self, *mixes: Mix) -> None:
        """Starts real guests, under QEMU."""
        directory = Path(self._undo.enter_context(TemporaryDirectory(prefix="arena-qemu-")))
        self._enter(QemuGuest(f"arena-{number}", mix, directory) for number, mix in enumerate(mixes))

    def _enter(self, started: Iterable[Guest]) -> None:
        new = [self._undo.enter_context(guest) for guest in started]
        self.guests += new
        for guest in new:
            guest.wait_ready()
            self._ready += 1

    def _guest(self, mix: Mix, task: Task, layout: Layout) -> Guest:
        self._started += 1
        name = f"arena-{self._started}"
        return Guest(name, mix) if self.size.small_pages else WorkingGuest(name, mix, layout=layout, task=task)

    def end_oldest(self) -> None:
        """Ends the guest that has been there for longest."""
        self.guests.pop(0).stop()
        self._ready -= 1

    def spoil(self, pages: int) -> None:
        """Has every guest overwrite so many of its equal pages with unique ones."""
        for guest in self.guests:
            spoiled = guest.spoil(min(pages, guest.mix.equal_bytes // PAGE_BYTES)) * PAGE_BYTES
            # Each begins at its first page, so the pages that are left are still equal to each other.
            guest.mix = replace(guest.mix, equal_bytes=guest.mix.equal_bytes - spoiled)

    def age(self, passes: int) -> None:
        """Has ksmd scan everything so often with smart_scan, as fast as it can."""
        before = self.ksm.number("full_scans")
        for name, value in (FULL_SPEED | {"smart_scan": 1}).items():
            self.ksm.write(name, value)
        wait_for(lambda: self.ksm.number("full_scans") >= before + passes, AGEING_SECONDS, "end of ageing")

    def leave(self, left_bytes: int, seconds: float = 0) -> None:
        """Takes all memory but this and the overhead: within so many seconds, or at once, as a guest."""
        ballast = self._ballast(left_bytes + self.size.overhead_bytes, seconds, as_guest=not seconds)
        if not seconds:
            ballast.wait_taken()
            _wait_calm()

    @contextmanager
    def short(self, left_bytes: int, bytes_per_second: float) -> Iterator[None]:
        """Takes all memory but this at this rate, and notes when it has; gives it back at the block's end.

        It is then no error that the host ran out of memory before: the least that was available tells of it.
        """
        seconds = max(0.0, read_memory(Door()).available_bytes - left_bytes) / bytes_per_second
        with self._ballast(left_bytes, seconds, as_guest=False) as ballast:
            with suppress(RuntimeError):
                ballast.wait_taken()
            self.short_seconds = time.monotonic() - self._begun
            yield
        self.relief_seconds = time.monotonic() - self._begun

    def _ballast(self, left_bytes: int, seconds: float, *, as_guest: bool) -> Ballast:
        size_bytes = max(0, read_memory(Door()).available_bytes - left_bytes)
        return self._undo.enter_context(Ballast(size_bytes, seconds, as_guest=as_guest))

    def possible(self) -> tuple[int, int]:
        """Returns what could be saved now at best, in bytes, and how many guests have filled their memory."""
        mixes = [guest.mix for guest in tuple(self.guests)] if self.goal is None else self.goal
        zero = bool(self.ksm.number("use_zero_pages"))
        return achievable_pages(mixes, max_page_sharing=self._sharing, use_zero_pages=zero) * PAGE_BYTES, self._ready

    def freed_bytes(self) -> int:
        """Returns what splits of the guests' huge pages freed, which no counter of KSM shows."""
        return sum(guest.freed_bytes() for guest in tuple(self.guests))

    def reports(self) -> list[dict[str, Any]]:
        """Returns what it is like to be each guest; the first measures its memory."""
        found = [guest.report(0 if number else self.size.rounds) for number, guest in enumerate(self.guests)]
        return [report for report in found if report]

    def fits_one_more(self) -> bool:
        """Whether one more guest fits under the cap, as long as merging saves what it does now."""
        used = len(self.guests) * self.size.guest_bytes - self.ksm.saved_pages() * PAGE_BYTES - self.freed_bytes()
        return used + self.size.guest_bytes <= self.size.cap_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()


def _wait_calm() -> None:
    """Waits until nobody stalls on memory any more; not for ever, where others on the machine do."""
    end_seconds = time.monotonic() + CALM_SECONDS
    while time.monotonic() < end_seconds:
        pressure = read_pressure(Door())
        if pressure is None or pressure.some.avg10_percent < CALM_PERCENT:
            return
        time.sleep(0.5)
