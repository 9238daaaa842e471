"""The worker works in small steps, and may be told something else after each: what it has planned may be old then."""

import ctypes
import mmap
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from ksmtuned_py.backends.scanlink import for_scanner
from ksmtuned_py.cli.workload import Mix, workloads
from ksmtuned_py.door import Door
from ksmtuned_py.scanner.pagemap import PRIVATE
from ksmtuned_py.scanner.pages import ZERO, repeated
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.remap.foothold.area import Area, Operation
from ksmtuned_py.scanner.remap.foothold.permits import Permits
from ksmtuned_py.scanner.remap.foothold.session import Session, Window
from ksmtuned_py.scanner.remap.refuse.eligibility import Eligible
from ksmtuned_py.scanner.remap.share.exchange import share
from ksmtuned_py.scanner.remap.share.remapper import Remapper
from ksmtuned_py.scanner.remap.share.runs import PageRun
from ksmtuned_py.scanner.remap.share.store import Store
from ksmtuned_py.scanner.remap.stop.stops import Busy, NotStopped, Stops, patiently
from ksmtuned_py.scanner.scanner import Scanner, Watched
from ksmtuned_py.scanner.sweep import Sweep
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.units import MIB
from tests.scan.conftest import result, worked
from tests.scan.killed import watch
from tests.scan.test_remap import REMAP
from tests.scan.writers import writers

MOST_PAGES = 1024
"""The most pages that one step may add to a memfd, or exchange."""
PAGE = mmap.PAGESIZE


def test_what_is_merged_first_is_put_into_the_memfd_in_small_steps(root: None) -> None:
    settings = for_scanner(REMAP)
    remapper = Remapper(Door(), settings)
    with workloads([Mix(equal_bytes=64 * MIB)] * 2, mergeable=False) as loads:
        scanner = Scanner(Door(), settings, remapper)
        scanner.watch([Target(pid=load.pid, start_ticks=0, remap=True) for load in loads])
        before, grown = 0, list[int]()
        for _ in scanner.steps():
            now = sum(store.end for store in remapper._stores.by_inode().values())
            grown.append(now - before)
            before = now
            if scanner.counters.pages_sharing > 0.95 * 64 * MIB // 4096:
                break
        assert sum(grown) >= 0.95 * 64 * MIB // 4096
        assert max(grown) <= MOST_PAGES


class Read(Process):
    """Notes which files are read that make the kernel walk through page tables."""

    def __init__(self, target: Target) -> None:
        self.files = set[str]()
        super().__init__(target, Door())

    def pieces(self, name: str, most_bytes: int) -> Iterator[bytes]:
        self.files.add(name)
        return super().pieces(name, most_bytes)


def test_flags_are_read_only_of_a_guest_that_has_something_to_share(root: None) -> None:
    remapper, sweep = Remapper(Door(), for_scanner(REMAP)), Sweep()
    with writers(1, 16) as (one,), Read(Target(pid=one.pid, start_ticks=0, remap=True)) as process:
        watched = Watched(process.target)
        for _ in range(2):
            list(sweep.guest(process, watched.table, PRIVATE, smart=False))
        slabs = watched.table.slabs.values()
        others = np.array([5], np.uint64)
        equal = repeated([slab.prints[slab.steady & (slab.prints > ZERO)] for slab in slabs])
        for prints, read in ((others, False), (equal, True)):
            list(remapper.merge(process, watched, prints, split_huge=True))
            assert ("smaps" in process.files) == read, watched.refusal
        assert one.check()["wrong"] == 0


class Late(Window):
    """A guest that has stood still for so long already; nothing can be done to it any more."""

    def __init__(self, seconds: float) -> None:
        self.begun_seconds = time.monotonic() - seconds

    def run(self, operations: list[Operation]) -> list[int]:
        raise AssertionError(operations)


def test_nothing_is_exchanged_when_comparing_has_taken_the_whole_time_of_a_stop() -> None:
    with mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory, socket.socket() as line:
        permits = Permits(frozenset(), frozenset())
        session = Session(Area(), line, line.fileno(), 3, (0, 0), (0, 0), permits, Stops(0.005))
        memory[:] = b"a" * len(memory)
        anchor = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(anchor)
        with Process(Target(pid=os.getpid(), start_ticks=0), Door()) as process:
            (mapping,) = [one for one in process.mappings() if one.start <= address < one.end]
            run, content = PageRun(address, 4, 0, Eligible(mapping, True, ())), memory[:]
            with pytest.raises(Busy, match="could not be compared in the time"):
                share(process, Late(0.006), session, [run], [content])
        session.close()
        del anchor


def test_a_guest_runs_ten_times_as_long_as_it_stood_still_for_too_long() -> None:
    stops = Stops(0.003)
    begun = time.monotonic()
    assert worked(patiently(stops, 7, lambda: stops.took(7, 0.001)))[0] == []
    told, _ = worked(patiently(stops, 7, lambda: stops.took(7, 0.01)))
    assert time.monotonic() - begun >= 10 * 0.01
    assert len(told) >= 10  # it may be told something after each
    assert stops.over == 1
    assert not worked(patiently(stops, 7, lambda: stops.took(7, 60.0)))[0]  # a long rest is not waited for
    with pytest.raises(NotStopped, match="it runs on for ten times as long"):
        stops.refuse_late(7)
    stops.refuse_late(8)
    assert 599 < stops.rest_seconds(7) <= 600


def test_whoever_stops_a_guest_is_urgent_until_it_runs_on(root: None) -> None:
    nice: list[int] = []
    with (
        writers(1, 16) as (one,),
        closing(Store("ksmtuned-py-pages-test", 0)) as store,
        Process(Target(pid=one.pid, start_ticks=0), Door()) as process,
    ):
        steps = ("seize", "interrupt", "detach")
        watch(lambda name: nice.append(os.getpriority(os.PRIO_PROCESS, 0)) if name in steps else None)
        session = result(Session.begin(process, store.readable, Stops(0.05)))
        with session.window(process):
            pass
        sys.setprofile(None)
        session.close()
        assert one.check()["wrong"] == 0
    assert len(nice) > 3 * 3 * 3  # in three stops, for each of three threads at least
    assert set(nice) == {-10}
