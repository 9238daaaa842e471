"""Shares equal pages of guests without KSM: many short stops, in each of which some runs of pages are exchanged."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial

import numpy as np

from ksmtuned_py.backends.scan.mappings import Mapping, are_still_there
from ksmtuned_py.backends.scan.pagemap import PAGE, PRIVATE, PRIVATE_SMALL, page_count
from ksmtuned_py.backends.scan.pages import Prints
from ksmtuned_py.backends.scan.process import Gone, Process
from ksmtuned_py.backends.scan.refusal import Refused
from ksmtuned_py.backends.scan.remap.eligibility import (
    Eligible,
    command_refusal,
    descriptor_refusal,
    eligible,
    mappings_refusal,
    of_one_policy,
    status_refusal,
)
from ksmtuned_py.backends.scan.remap.giveback import give_back
from ksmtuned_py.backends.scan.remap.numa import policies
from ksmtuned_py.backends.scan.remap.pace import Pace
from ksmtuned_py.backends.scan.remap.permits import refuse_forbidden
from ksmtuned_py.backends.scan.remap.references import references
from ksmtuned_py.backends.scan.remap.runs import Run, operations, plan
from ksmtuned_py.backends.scan.remap.session import Session, Window
from ksmtuned_py.backends.scan.remap.sharers import Sharers
from ksmtuned_py.backends.scan.remap.store import Store
from ksmtuned_py.backends.scan.remap.stores import Stores
from ksmtuned_py.backends.scan.remap.threads import Lost
from ksmtuned_py.backends.scan.scanner import Watched
from ksmtuned_py.backends.scan.table import SLAB_BYTES
from ksmtuned_py.backends.scan.target import Target
from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.units import MIB

_TRIES, _AGAIN_SECONDS = 10, 0.05
"""In a row, of giving pages back: a guest whose mappings are changing is refused for the moment only."""
_STOPS = 5
"""In a row, for one window: of a guest whose mappings have changed in the millisecond since they were looked at."""
_LOOK_SECONDS = 1.0
"""Between two looks at every process of the host for merged pages, as long as nothing more is merged."""
Standing = Callable[[], AbstractContextManager[Window]]
"""Stops a guest for a with block."""


class Remapper:
    """The merger of the remap mode."""

    def __init__(self, door: Door, settings: Scan) -> None:
        self._door = door
        self._settings = settings
        self._least_bytes = settings.remap_least_mib * MIB
        self._stores = Stores(door)
        self._sessions: dict[tuple[int, int], Session] = {}
        self._pace = Pace(settings.stop_window_ms / 1000)
        self._next_look = 0.0
        self._outdated = True
        """Something was merged or given back since the last look."""
        self.pages_shared = 0
        self.pages_sharing = 0

    def window_milliseconds(self) -> dict[str, float]:
        """How long guests were stopped: median, 99th percentile and longest of the last windows."""
        if not self._pace.window_seconds:
            return {}
        p50, p99, longest = np.percentile(self._pace.window_seconds, (50, 99, 100)) * 1000
        return {"p50": float(p50), "p99": float(p99), "max": float(longest)}

    def merge(self, process: Process, watched: Watched, prints: Prints, *, split_huge: bool) -> Iterator[int]:
        """Shares the guest's steady pages with these prints; yields pages it worked on."""
        try:
            self._check(process)
            found, reason = self._eligible(process, self._least_bytes)
            allowed, policy, other = of_one_policy(found)
            watched.refusal = reason or other
            store = self._stores.of(process.target.group, policy)
            kind = PRIVATE if split_huge else PRIVATE_SMALL
            runs: list[Run] = []
            for slab in watched.table.slabs.values():
                for one in allowed:
                    if _touches(one, slab.base):
                        runs += plan(process, slab, prints, store, one, kind)
            runs = self._affordable(process, runs)
            if runs:
                wanted = [one.mapping for one in allowed]
                self._outdated = True
                yield from self._exchange(process, store, runs, wanted)
        except Refused as refused:
            if isinstance(refused, Lost):
                self._drop(process)
            watched.refusal = str(refused)

    def look_after(self, guests: list[Target]) -> None:
        """Counts what is shared, by all processes of the host, and frees what nobody maps any more."""
        due = time.monotonic() >= self._next_look
        if not due and not self._outdated:
            return
        self._outdated = False
        for key in self._sessions.keys() - {(guest.pid, guest.start_ticks) for guest in guests}:
            self._sessions.pop(key).close()
        stores = {inode: store for inode, store in self._stores.by_inode().items() if store.end}
        oldest_ticks = min((store.since_ticks for store in stores.values()), default=0)
        ends = {inode: store.end for inode, store in stores.items()}
        counts, certain = references(self._door, ends, oldest_ticks)
        self.pages_shared = sum(int(np.count_nonzero(found.readers)) for found in counts.values())
        self.pages_sharing = sum(int(found.readers.sum()) for found in counts.values()) - self.pages_shared
        if not due:
            return
        self._next_look = time.monotonic() + _LOOK_SECONDS
        if certain:
            for inode, store in stores.items():
                store.free_unused(counts[inode])

    def give_back(self, process: Process) -> Iterator[int]:
        """Gives the guest all its pages back as private memory."""
        self._outdated = True
        tries, least = _TRIES, sys.maxsize
        while tries and (merged := [mapping for mapping in process.mappings() if mapping.merged]):
            size = sum(mapping.size for mapping in merged)
            tries = _TRIES if size < least else tries - 1
            least = min(size, least)
            try:
                self._check(process)
                yield from self._give_back(process)
            except Refused as refused:
                if isinstance(refused, Lost):
                    self._drop(process)
                time.sleep(_AGAIN_SECONDS)

    def _give_back(self, process: Process) -> Iterator[int]:
        merged = [one for one in self._eligible(process, PAGE)[0] if one.mapping.merged]
        store = self._stores.of(process.target.group, of_one_policy(merged)[1])
        session = self._session(process, store)
        if any(one.policy for one in merged):
            refuse_forbidden(session.permits.forbidden)
        wanted = [one.mapping for one in merged]
        return give_back(process, session, merged, self._prepared(process, session, wanted))

    def _eligible(self, process: Process, least_bytes: int) -> tuple[list[Eligible], str]:
        numa = self._door.exists("proc/self/numa_maps")
        smaps = process.read_text("smaps")
        return eligible(smaps, policies(process.read_text("numa_maps")) if numa else None, least_bytes)

    def _check(self, process: Process) -> None:
        """Raises Refused for a guest that cannot be remapped safely."""
        command_line = process.read_text("cmdline").replace("\0", " ")
        reason = (
            descriptor_refusal(process.open_files())
            or command_refusal(command_line)
            or mappings_refusal(process.mappings(), self._least_bytes)
        )
        for thread in process.names("task"):
            with suppress(Gone):  # that thread only
                reason = reason or status_refusal(process.read_text(f"task/{thread}/status"))
        if reason:
            raise Refused(reason)
        Sharers(self._door, process).look_at_all()

    def _prepared(self, process: Process, session: Session, wanted: list[Mapping]) -> Standing:
        """What stops it, once all is looked at that takes long; raises Refused."""
        sharers = Sharers(self._door, process)
        with session.window(process):
            sharers.stand()
        sharers.look_at_all()
        self._settle(process, wanted)
        return partial(self._standing, process, session, wanted, sharers)

    def _settle(self, process: Process, wanted: list[Mapping]) -> None:
        """What it has mapped otherwise may come and go, as QEMU's coroutines do; raises Refused."""
        mappings = process.settle()
        if reason := mappings_refusal(mappings, self._least_bytes):
            raise Refused(reason)
        if not are_still_there(wanted, mappings):
            raise Refused("its mappings have changed")

    @contextmanager
    def _standing(
        self, process: Process, session: Session, wanted: list[Mapping], sharers: Sharers
    ) -> Iterator[Window]:
        """It stands still, and what was checked before still holds, now that nothing can change it any more."""
        for _ in range(_STOPS):
            with session.window(process) as window:
                if reason := descriptor_refusal(process.open_files()):
                    raise Refused(reason)
                if not process.has_changed():
                    sharers.look_at_new()
                    yield window
                    return
            self._settle(process, wanted)
        raise Refused("its mappings are changing all the time")

    def _affordable(self, process: Process, runs: list[Run]) -> list[Run]:
        """The longest runs, as far as the guest may have more mappings; each can cost two."""
        most = int(self._door.read("proc/sys/vm/max_map_count")) * self._settings.mappings_percent / 100
        room = max(0, int(most) - len(process.mappings())) // 2
        longest = sorted(runs, key=lambda run: run.pages, reverse=True)[:room]
        return sorted(longest, key=lambda run: run.address)

    def _exchange(self, process: Process, store: Store, runs: list[Run], wanted: list[Mapping]) -> Iterator[int]:
        session = self._session(process, store)
        if runs[0].eligible.policy:
            refuse_forbidden(session.permits.forbidden)
        return self._windows(process, store, session, runs, self._prepared(process, session, wanted))

    def _windows(
        self, process: Process, store: Store, session: Session, runs: list[Run], standing: Standing
    ) -> Iterator[int]:
        for some in self._pace.portions(runs):
            contents = [store.read(run.offset, run.pages) for run in some]
            with standing() as window:
                self._share(process, window, session, some, contents)
            self._pace.took(some, time.monotonic() - window.begun_seconds)
            yield sum(run.pages for run in some)

    def _share(
        self, process: Process, window: Window, session: Session, runs: list[Run], contents: list[bytes]
    ) -> None:
        equal = [
            part for run, content in zip(runs, contents, strict=True) for part in _equal_parts(process, run, content)
        ]
        area = session.area
        if equal and (policy := equal[0].eligible.policy):
            area.put_nodes(policy.nodes)
        table, maps = operations(equal, session.store_there, area.vector_address, area.nodes_address)
        if table:
            results = window.run(table)
            failed = [results[index] for index in maps if results[index] < 0]
            if failed:
                raise Refused(f"mmap in it failed: {os.strerror(-failed[0])}")

    def _session(self, process: Process, store: Store) -> Session:
        key = (process.target.pid, process.target.start_ticks)
        if key in self._sessions and self._sessions[key].store_key != store.key:
            self._drop(process)  # its group or NUMA policy has changed: what it has open is the old one's memfd
        if key not in self._sessions:
            self._sessions[key] = Session.begin(process, store.descriptor)
        return self._sessions[key]

    def _drop(self, process: Process) -> None:
        session = self._sessions.pop((process.target.pid, process.target.start_ticks), None)
        if session:
            session.close()


def _touches(one: Eligible, base: int) -> bool:
    return one.mapping.start < base + SLAB_BYTES and one.mapping.end > base


def _equal_parts(process: Process, run: Run, content: bytes) -> Iterator[Run]:
    """The parts of the run that hold, now, exactly what the store has, in private pages in memory."""
    if page_count(process.runs(run.address, run.address + run.size, PRIVATE)) != run.pages:
        return
    block = bytearray(run.size)
    if process.read([memoryview(block)], run.address) != run.size:
        return
    if block == content:
        yield run
        return
    words = np.frombuffer(block, np.uint64), np.frombuffer(content, np.uint64)
    same = (words[0] == words[1]).reshape(run.pages, -1).all(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], same, [False])).astype(np.int8))).tolist()
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        yield run.part(begin, end - begin)
