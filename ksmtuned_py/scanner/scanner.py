"""Makes pass after pass over all guests: reads, counts, gives back. The worker decides when its generator goes on."""

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from ksmtuned_py.door import Door
from ksmtuned_py.model import Counters, GuestKey
from ksmtuned_py.scanner.backoff import Account
from ksmtuned_py.scanner.count import count
from ksmtuned_py.scanner.mark import NOBODY
from ksmtuned_py.scanner.pagemap import PAGE, PRIVATE
from ksmtuned_py.scanner.pages import Prints
from ksmtuned_py.scanner.process import Gone, Process
from ksmtuned_py.scanner.refusal import TROUBLE, own_trouble
from ksmtuned_py.scanner.settings import ScanSettings
from ksmtuned_py.scanner.sweep import Step, Sweep
from ksmtuned_py.scanner.table import PAGE_TABLE_BYTES, Table
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.scanner.zero import Zeros
from ksmtuned_py.scanner.zeroplace import place_refusal
from ksmtuned_py.sensors.memory import MEMINFO, parse_meminfo
from ksmtuned_py.units import MIB

_TABLES_SHARE, _PRINTS_SHARE = 3 / 4, 1 / 16
"""Shares of the memory that the scanner may take: for what is known of pages, and for what they share."""
_PRINT_BYTES = 8
WORK_BYTES = 64 * MIB
"""Memory left for counting equal pages, and for what is said about thousands of guests."""


@dataclass(slots=True)
class Watched:
    """What is known of one guest."""

    target: Target
    table: Table = field(default_factory=Table)
    zeros: Account = field(default_factory=Account)
    saveable_pages: int = 0
    """Steady pages that are zero, or equal to another page of the group."""
    trouble: str | None = None
    """Why the guest, or a part of it, is not scanned; None when all of it is."""
    refusal: str | None = None
    """Why it is not remapped although its owner allows it."""
    leaving: bool = False
    """Whether its merged pages go back before anything else: it may not merge, or not with the same guests."""

    def forget(self) -> None:
        """Forgets all that is known of the guest's pages."""
        self.table, self.zeros, self.saveable_pages = Table(), Account(), 0

    def refuse(self, reason: str | None) -> None:
        """Notes why it is not remapped, or its merged pages were not given back; None when nothing was refused."""
        self.refusal = reason

    def tell(self, reason: str) -> None:
        """Notes what went wrong with it in this pass."""
        self.trouble = reason


class Merger(Protocol):
    """Shares equal pages; there is none unless the reclaim mode is remap."""

    pages_shared: int
    pages_sharing: int

    def merge(self, process: Process, watched: Watched, prints: Prints, *, split_huge: bool) -> Iterator[int]:
        """Shares the guest's steady pages with these prints; yields pages it worked on."""

    def window_milliseconds(self) -> dict[str, float]:
        """How long guests were stopped for it, in milliseconds."""

    def tend(self, guests: list[Target]) -> Iterator[int]:
        """Counts what is still shared and frees what nobody maps any more; yields the work of each step, in pages."""

    def give_back(self, process: Process) -> Generator[int, None, str | None]:
        """Gives the guest its pages back as private memory; returns why not all of them, or None."""


class Scanner:
    """All guests, their tables, and the counters of ksmd."""

    def __init__(
        self,
        door: Door,
        settings: ScanSettings,
        merger: Merger | None = None,
        memory_bytes: int = sys.maxsize,
        mark: Callable[[GuestKey], None] | None = None,
    ) -> None:
        self._door = door
        self._mark = mark or _nobody_looks
        self._settings = settings
        self._merger = merger
        tables_bytes = max(0, memory_bytes - WORK_BYTES)
        self._most_pages = int(tables_bytes * _TABLES_SHARE) // PAGE_TABLE_BYTES
        self._most_prints = int(tables_bytes * _PRINTS_SHARE) // _PRINT_BYTES if merger else 0
        self._sweep = Sweep()
        self._zeros = Zeros(door)
        self.watched: dict[GuestKey, Watched] = {}
        self.smart = True
        self.refusal: str | None = None
        """Why zero pages are not given back; None when they are."""
        self.counters = Counters()
        self._full_scans = 0
        self._counted: list[Target] = []
        self._gives_back = settings.reclaim != "report"
        self._split_huge = False

    def watch(self, targets: list[Target]) -> None:
        """Sets the guests to scan from now on; what is known of those that stay is kept."""
        known = self.watched
        self.watched = {}
        for target in targets:
            watched = known.get(target.key) or Watched(target)
            before = watched.target
            watched.leaving |= not target.merge or target.group != before.group or before.remap > target.remap
            watched.target = target
            self.watched[target.key] = watched

    def steps(self) -> Iterator[int]:
        """Scans without end: yields the work of each step in pages (at least 1), and 0 at the end of each pass."""
        while True:
            yield from self._let_go()
            guests = [guest for guest in self.watched.values() if guest.target.merge and not guest.leaving]
            self._begin_pass(guests)
            before = self._sweep.pages_scanned
            for guest in guests:
                yield from self._read(guest)
            counted = [guest.target for guest in guests]
            if self._sweep.pages_scanned != before or counted != self._counted:
                self._counted = counted
                yield from self._use(guests)
            yield from self._tend(guests)
            self._full_scans += any(guest.table.slabs for guest in guests)
            self._publish(guests)
            yield 0

    def give_back(self) -> Iterator[int]:
        """Undoes all merging; yields the work of each step, in pages."""
        yield from self._in_turns(list(self.watched.values()), self.tidy)

    def tidy(self) -> Iterator[int]:
        """Counts anew what is shared, and frees what nobody needs any more; yields the work of each step, in pages."""
        guests = list(self.watched.values())
        yield from self._tend(guests)
        self._publish(guests)

    def window_milliseconds(self) -> dict[str, float]:
        """How long guests were stopped, in milliseconds (p50, p99, max); empty when none was."""
        return self._merger.window_milliseconds() if self._merger else {}

    @property
    def has_work(self) -> bool:
        """Whether any guest is to be scanned."""
        return any(guest.target.merge or guest.leaving for guest in self.watched.values())

    @property
    def table_bytes(self) -> int:
        """Bytes of memory that the tables take."""
        return sum(guest.table.bytes for guest in self.watched.values())

    def progress(self) -> Counters:
        """Returns the counters, with the scanning figures of this very moment."""
        return replace(
            self.counters,
            full_scans=self._full_scans,
            pages_scanned=self._sweep.pages_scanned,
            pages_skipped=self._sweep.pages_skipped,
        )

    def _begin_pass(self, guests: list[Watched]) -> None:
        to_disk = self._settings.zero_pages_to_disk
        self.refusal = place_refusal(self._door, to_disk=to_disk) if self._gives_back else None
        self._split_huge = self._memory_is_short()
        self._sweep.pass_number += 1
        self._sweep.free_pages = self._most_pages - sum(guest.table.pages for guest in guests)

    @contextmanager
    def at(self, guest: Target) -> Iterator[Process]:
        """Opens its process; raises Gone, Refused. It is marked meanwhile, and longer when we hang or fail at it."""
        self._mark(guest.key)
        try:
            with Process(guest, self._door) as process:
                yield process
        except (*TROUBLE, Gone, GeneratorExit):
            self._mark(NOBODY)
            raise
        self._mark(NOBODY)

    def _let_go(self) -> Iterator[int]:
        """Gives leaving guests back what they have merged; tries again in the next pass when that was refused."""
        leaving = [guest for guest in self.watched.values() if guest.leaving]
        for guest in leaving:
            guest.forget()
        yield from self._in_turns(leaving)

    def _in_turns(self, guests: list[Watched], after_each: Callable[[], Iterable[int]] = tuple) -> Iterator[int]:
        """Gives guests back what they have merged, turn after turn, as long as each gives something back."""
        before = sys.maxsize
        while True:
            left = 0
            for guest in guests:
                still = yield from self._give_back_to(guest)
                guest.leaving = guest.leaving and bool(still)
                left += still
            yield from after_each()
            if not left or left >= before:
                return
            before = left

    def _give_back_to(self, guest: Watched) -> Generator[int, None, int]:
        """Gives its merged pages back; returns the bytes that it still has, or may have."""
        if not self._merger:
            return 0
        try:
            with own_trouble(guest.tell), self.at(guest.target) as process:
                reason = yield from self._merger.give_back(process)
                still = sum(mapping.size for mapping in process.mappings() if mapping.merged)
                guest.refuse(reason if still else None)
                return still
        except Gone:
            return 0
        return PAGE

    def _read(self, guest: Watched) -> Iterator[int]:
        guest.trouble = None
        try:
            with own_trouble(guest.tell), self.at(guest.target) as process:
                for step in self._sweep.guest(process, guest.table, PRIVATE, smart=self.smart):
                    self._tend_zeros(process, step, guest)
                    yield step.work
        except Gone:
            guest.forget()
        if guest.table.left_out_pages:
            guest.tell(
                f"{guest.table.left_out_pages} of its pages are not scanned: scan.worker_memory_mib is too small"
            )
        guest.zeros.out_pages = sum(len(slab.paged_out) for slab in guest.table.slabs.values())
        guest.zeros.end_pass(time.monotonic())

    def _tend_zeros(self, process: Process, step: Step, guest: Watched) -> None:
        if step.slab and step.zeros is None:
            self._zeros.find_back(process, step.slab, guest.zeros)
        elif step.slab and step.zeros is not None and len(step.zeros) and self._gives_back and not self.refusal:
            self._zeros.page_out(process, step.slab, step.zeros, guest.zeros, split_huge=self._split_huge)

    def _memory_is_short(self) -> bool:
        memory = parse_meminfo(MEMINFO, self._door.read(MEMINFO))
        return memory.available_bytes < memory.total_bytes * self._settings.split_huge_below_percent / 100

    def _use(self, guests: list[Watched]) -> Iterator[int]:
        """Counts what a pass has found out, and shares it, in each group of guests."""
        groups: dict[str, list[Watched]] = {}
        for guest in guests:
            groups.setdefault(guest.target.group, []).append(guest)
        for group in groups.values():
            counted = yield from count([guest.table for guest in group], self._most_prints)
            for guest, pages in zip(group, counted.pages, strict=True):
                guest.saveable_pages = pages
            if self._merger:
                yield from self._merge(self._merger, group, counted.prints)

    def _merge(self, merger: Merger, guests: list[Watched], prints: Prints) -> Iterator[int]:
        for guest in guests:
            if guest.target.remap:
                try:
                    with own_trouble(guest.tell), self.at(guest.target) as process:
                        yield from merger.merge(process, guest, prints, split_huge=self._split_huge)
                except Gone:
                    guest.forget()

    def _tend(self, guests: list[Watched]) -> Iterator[int]:
        if self._merger:
            yield from self._merger.tend([guest.target for guest in guests])

    def _publish(self, guests: list[Watched]) -> None:
        slabs = [slab for guest in guests for slab in guest.table.slabs.values()]
        steady = sum(int(np.count_nonzero(slab.ages)) for slab in slabs)
        seen = sum(len(slab.pages) for slab in slabs)
        zeros = sum(guest.zeros.out_pages for guest in guests)
        shared, sharing = (self._merger.pages_shared, self._merger.pages_sharing) if self._merger else (0, 0)
        self.counters = Counters(
            pages_shared=shared,
            pages_sharing=sharing,
            pages_unshared=steady,
            pages_volatile=seen - steady,
            ksm_zero_pages=zeros,
            general_profit=(sharing + zeros) * PAGE - self.table_bytes,
        )


def _nobody_looks(_: GuestKey) -> None:
    """Takes no notes, where there is no parent to read them."""
