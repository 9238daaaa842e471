"""Shares equal pages of guests without KSM: many short stops, in each of which some runs of pages are exchanged."""

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from ksmtuned_py.backends.scan.mappings import PAGES_NAME
from ksmtuned_py.backends.scan.pagemap import PRIVATE, PRIVATE_SMALL, page_count
from ksmtuned_py.backends.scan.pages import Prints
from ksmtuned_py.backends.scan.process import Gone, Process
from ksmtuned_py.backends.scan.remap.eligibility import (
    Eligible,
    command_refusal,
    descriptor_refusal,
    eligible,
    mappings_refusal,
    numa_refusal,
    status_refusal,
)
from ksmtuned_py.backends.scan.remap.giveback import give_back
from ksmtuned_py.backends.scan.remap.references import merged_mappings, references
from ksmtuned_py.backends.scan.remap.runs import Run, operations, plan
from ksmtuned_py.backends.scan.remap.session import Session, Window
from ksmtuned_py.backends.scan.remap.store import Store
from ksmtuned_py.backends.scan.remap.threads import Lost, Refused
from ksmtuned_py.backends.scan.scanner import Watched
from ksmtuned_py.backends.scan.table import SLAB_BYTES
from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.units import MIB

_FIRST_WORK, _LEAST_WORK, _MOST_WORK = 256, 32, 8192
_RUN_WORK = 16
"""What a run costs, however short, in pages: looking it up, comparing and mapping it."""
_AIM = 0.5
"""Of the longest stop: what a window costs varies by a factor of two on a busy host."""
_MOST_RUNS = 150
"""Of one window: they fill the table of operations at most to two thirds."""
_LOOK_SECONDS = 1.0
"""Between two looks at every process of the host for merged pages."""


class Remapper:
    """The merger of the remap mode."""

    def __init__(self, door: Door, settings: Scan) -> None:
        self._door = door
        self._settings = settings
        self._least_bytes = settings.remap_least_mib * MIB
        self._stores: dict[str, Store] = {}
        self._sessions: dict[tuple[int, int], Session] = {}
        self._work_per_window = _FIRST_WORK
        self._next_look = 0.0
        self.pages_shared = 0
        self.pages_sharing = 0
        self.window_seconds: deque[float] = deque(maxlen=10_000)

    def window_milliseconds(self) -> dict[str, float]:
        """How long guests were stopped: median, 99th percentile and longest of the last windows."""
        if not self.window_seconds:
            return {}
        p50, p99, longest = np.percentile(self.window_seconds, (50, 99, 100)) * 1000
        return {"p50": float(p50), "p99": float(p99), "max": float(longest)}

    def merge(self, process: Process, watched: Watched, prints: Prints, *, split_huge: bool) -> Iterator[int]:
        """Shares the guest's steady pages with these prints; yields pages it worked on."""
        try:
            size = process.read_text("statm").split()[0]
            allowed, watched.refusal = self._allowed(process)
            store = self._store(process)
            kind = PRIVATE if split_huge else PRIVATE_SMALL
            runs: list[Run] = []
            for slab in watched.table.slabs.values():
                for one in allowed:
                    if _touches(one, slab.base):
                        runs += plan(process, slab, prints, store, one, kind)
            runs = self._affordable(process, runs)
            if runs:
                yield from self._exchange(process, store, runs, size)
        except Refused as refused:
            watched.refusal = str(refused)

    def look_after(self, processes: list[Process]) -> None:
        """Counts what is shared, by all processes of the host, and frees what nobody maps any more."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_SECONDS
        keys = {process.target.pid: (process.target.pid, process.target.start_ticks) for process in processes}
        for key in self._sessions.keys() - set(keys.values()):
            self._sessions.pop(key).close()
        counts, certain = references(self._door, {inode: store.end for inode, store in self._by_inode().items()})
        stores = self._by_inode()
        self.pages_shared = sum(int(np.count_nonzero(found)) for found in counts.values())
        self.pages_sharing = sum(int(found.sum()) for found in counts.values()) - self.pages_shared
        if certain:
            for inode, store in stores.items():
                store.free_unused(counts[inode])

    def give_back(self, process: Process) -> Iterator[int]:
        """Gives the guest all its pages back as private memory."""
        self._next_look = 0.0
        if not any(mapping.merged for mapping in process.mappings()):
            return
        with suppress(Refused):
            self._check(process)
            yield from give_back(process, self._session(process, self._store(process)), self._in_window)

    def _allowed(self, process: Process) -> tuple[list[Eligible], str]:
        self._check(process)
        return eligible(process.read_text("smaps"), self._least_bytes)

    def _check(self, process: Process) -> None:
        """Raises Refused for a guest that cannot be remapped safely."""
        command_line = process.read_text("cmdline").replace("\0", " ")
        reason = (
            descriptor_refusal(process.open_files())
            or command_refusal(command_line)
            or mappings_refusal(process.mappings(), self._least_bytes)
            or numa_refusal(process.read_text("numa_maps") if self._door.exists("proc/self/numa_maps") else "")
        )
        for thread in process.names("task"):
            with suppress(Gone):  # that thread only
                reason = reason or status_refusal(process.read_text(f"task/{thread}/status"))
        if reason:
            raise Refused(reason)

    def _affordable(self, process: Process, runs: list[Run]) -> list[Run]:
        """The longest runs, as far as the guest may have more mappings; each can cost two."""
        most = int(self._door.read("proc/sys/vm/max_map_count")) * self._settings.mappings_percent / 100
        room = max(0, int(most) - len(process.mappings())) // 2
        longest = sorted(runs, key=lambda run: run.pages, reverse=True)[:room]
        return sorted(longest, key=lambda run: run.address)

    def _exchange(self, process: Process, store: Store, runs: list[Run], size: str) -> Iterator[int]:
        session = self._session(process, store)
        for some in self._portions(runs):
            contents = [store.read(run.offset, run.pages) for run in some]
            begun = time.monotonic()
            try:
                with session.window(process) as window:
                    self._in_window(process, size)
                    self._share(process, window, session, some, contents)
            except Lost:
                self._drop(process)
                raise
            self._adapt(sum(run.pages + _RUN_WORK for run in some), time.monotonic() - begun)
            yield sum(run.pages for run in some)

    def _share(
        self, process: Process, window: Window, session: Session, runs: list[Run], contents: list[bytes]
    ) -> None:
        equal = [
            part for run, content in zip(runs, contents, strict=True) for part in _equal_parts(process, run, content)
        ]
        table, maps = operations(equal[:_MOST_RUNS], session.store_there, session.area.vector_address)
        if table:
            results = window.run(table)
            failed = [results[index] for index in maps if results[index] < 0]
            if failed:
                raise Refused(f"mmap in it failed: {os.strerror(-failed[0])}")

    def _in_window(self, process: Process, size: str) -> None:
        """What was checked before must still hold now that nothing can change it any more."""
        reason = descriptor_refusal(process.open_files())
        if not reason and process.read_text("statm").split()[0] != size:
            reason = "its mappings are changing"
        if reason:
            raise Refused(reason)

    def _portions(self, runs: list[Run]) -> Iterator[list[Run]]:
        """So much at a time as the last windows have shown to fit."""
        rest = deque(runs)
        while rest:
            room = self._work_per_window
            some: list[Run] = []
            while rest and room > _RUN_WORK and len(some) < _MOST_RUNS:
                run = rest.popleft()
                room -= _RUN_WORK
                some.append(run.part(0, min(room, run.pages)))
                if run.pages > room:
                    rest.appendleft(run.part(room, run.pages - room))
                room -= some[-1].pages
            yield some

    def _adapt(self, work: int, seconds: float) -> None:
        self.window_seconds.append(seconds)
        fits = work * self._settings.stop_window_ms / 1000 * _AIM / seconds
        wanted = min(fits, self._work_per_window * 1.2)
        self._work_per_window = int(max(_LEAST_WORK, min(_MOST_WORK, wanted)))

    def _store(self, process: Process) -> Store:
        """The group's store: the one it has already, or one that a worker before us has left, or a new one."""
        group = process.target.group
        if group not in self._stores:
            name = f"{PAGES_NAME}-{hashlib.sha256(group.encode()).hexdigest()[:8]}"
            self._stores[group] = self._adopted(name) or Store(name)
        return self._stores[group]

    def _adopted(self, name: str) -> Store | None:
        """A store that nobody works with any more."""
        tried: set[int] = set()
        for pid in self._door.names("proc"):
            with suppress(OSError, KsmtunedError):
                for mapping in merged_mappings(self._door, pid):
                    if mapping.name.startswith(f"/memfd:{name} ") and mapping.inode not in tried:
                        tried.add(mapping.inode)
                        path = f"proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
                        return _take_over(name, os.open(self._door.path(path), os.O_RDWR | os.O_CLOEXEC))
        return None

    def _session(self, process: Process, store: Store) -> Session:
        key = (process.target.pid, process.target.start_ticks)
        if key not in self._sessions:
            self._sessions[key] = Session.begin(process, store.descriptor)
        return self._sessions[key]

    def _drop(self, process: Process) -> None:
        session = self._sessions.pop((process.target.pid, process.target.start_ticks), None)
        if session:
            session.close()

    def _by_inode(self) -> dict[int, Store]:
        return {store.key[1]: store for store in self._stores.values()}


def _take_over(name: str, descriptor: int) -> Store:
    try:
        return Store(name, descriptor)
    except OSError:
        os.close(descriptor)
        raise


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
