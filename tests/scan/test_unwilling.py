"""Guests that do not stand still, or change while they are merged: each is that guest's trouble, and nobody else's."""

import ctypes
import math
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from ksmtuned_py.cli.workload import Mix, Workload, workloads
from ksmtuned_py.door import Door
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.refuse.eligibility import Eligible
from ksmtuned_py.scanner.remap.share.intact import change
from ksmtuned_py.scanner.remap.share.runs import PageRun
from ksmtuned_py.scanner.remap.stop import ptrace
from ksmtuned_py.scanner.remap.stop.stops import Busy, Stops, patiently
from ksmtuned_py.scanner.remap.stop.threads import Threads
from ksmtuned_py.scanner.target import Target
from tests.scan.conftest import scanning, told, turn, wait_passes, wait_true
from tests.scan.crowd import IDLE_SECONDS, PAUSE_MILLISECS
from tests.scan.narrow import MIB
from tests.scan.test_hostile import odd
from tests.scan.test_remap import REMAP, maps
from tests.scan.writers import Writer, runs_freely, stores, writers
from tests.support.memcgroup import memory_cgroup
from tests.support.process import wait_for

CGROUPS = Path("/sys/fs/cgroup")
FREEZERS = [
    (root, file, on, off)
    for root, file, on, off in (
        (CGROUPS, "cgroup.freeze", "1", "0"),
        (CGROUPS / "unified", "cgroup.freeze", "1", "0"),
        (CGROUPS / "freezer", "freezer.state", "FROZEN", "THAWED"),
    )
    if (root / "cgroup.procs").exists()
]
PAGE = mmap.PAGESIZE
MERGED = " /memfd:ksmtuned-py-pages"
libc = ctypes.CDLL(None, use_errno=True)


class Freezer:
    """A control group that can be kept from running."""

    def __init__(self, directory: Path, file: str, on: str, off: str) -> None:
        self.directory, self._file, self._words = directory, directory / file, {True: on, False: off}

    def freeze(self, *, on: bool) -> None:
        self._file.write_text(self._words[on])


@contextmanager
def freezer(root: Path, file: str, on: str, off: str, one: Writer) -> Iterator[Freezer]:
    """Makes a control group with this guest in it."""
    directory = root / f"ksmtuned-py-test-{os.getpid()}"
    directory.mkdir()
    try:
        (directory / "cgroup.procs").write_text(str(one.pid))
        found = Freezer(directory, file, on, off)
        try:
            yield found
        finally:
            found.freeze(on=False)
            (root / "cgroup.procs").write_text(str(one.pid))
    finally:
        directory.rmdir()


@pytest.mark.parametrize(("root_of", "file", "on", "off"), FREEZERS)
def test_a_frozen_guest_is_refused_and_the_others_go_on(
    root: None, no_ksm: Door, root_of: Path, file: str, on: str, off: str
) -> None:
    with writers(3) as guests, freezer(root_of, file, on, off, guests[0]) as frozen:
        frozen.freeze(on=True)
        with scanning(no_ksm, REMAP, guests) as backend:
            wait_true(lambda: told(backend, "writer-0: its control group is frozen"), "reason")
            wait_true(lambda: bool(stores(guests[1]) & stores(guests[2])), "pages shared by the others")
            wait_passes(backend, 2)
            frozen.freeze(on=False)
            wait_true(lambda: bool(stores(guests[0])), "pages shared by it, too")
            assert backend.restarts == 0
        assert [one.check()["wrong"] for one in guests] == [0, 0, 0]


@pytest.mark.parametrize(("root_of", "file", "on", "off"), FREEZERS)
def test_a_guest_that_is_frozen_at_any_moment_loses_no_byte_and_holds_nobody_up(
    root: None, no_ksm: Door, root_of: Path, file: str, on: str, off: str
) -> None:
    with (
        writers(2) as guests,
        freezer(root_of, file, on, off, guests[0]) as frozen,
        scanning(no_ksm, REMAP, guests, sleep_millisecs=0) as backend,
    ):
        for turn_number in range(60):
            time.sleep(0.003 * (turn_number % 17))
            frozen.freeze(on=True)
            time.sleep(1.2 if turn_number % 20 == 0 else 0.01)
            frozen.freeze(on=False)
            assert [one.check()["wrong"] for one in guests] == [0, 0]
        wait_passes(backend, 2)
        assert backend.restarts == 0
        wait_for(lambda: all(runs_freely(one) for one in guests), 5.0, "guests that run freely")


def test_a_thread_that_waits_for_seconds_costs_the_others_nothing(root: None, no_ksm: Door) -> None:
    with (
        odd("waiting") as one,
        writers(2, idle_seconds=IDLE_SECONDS) as others,
        scanning(no_ksm, REMAP, [one, *others], sleep_millisecs=PAUSE_MILLISECS) as backend,
    ):
        one.ask("wait")
        child = wait_for(lambda: psutil.Process(one.pid).children(), 5.0, "child that it waits for")[0]
        try:
            wait_true(lambda: told(backend, "it waits for a device"), "reason")
            wait_true(lambda: bool(stores(others[0]) & stores(others[1])), "pages shared by the others")
            time.sleep(6.0)
            wait_passes(backend, 2)
            assert backend.restarts == 0
            assert one.check()["wrong"] == 0
            assert not stores(one)
        finally:
            child.kill()
        wait_for(lambda: runs_freely(one), 5.0, "guest that nobody traces any more")


def test_stops_that_fail_are_few_and_are_counted(root: None, no_ksm: Door) -> None:
    with odd("slow") as one, scanning(no_ksm, REMAP, [one]) as backend:
        one.ask("wait often")
        begun = time.monotonic()
        wait_true(lambda: told(backend, "it waits for a device"), "reason")
        wait_passes(backend, 12)
        failed = backend.window_milliseconds["failed"]
        assert 1 <= failed <= 2 + 2 * math.log2(2 + time.monotonic() - begun)
        assert backend.window_milliseconds["max"] > 0
        assert one.check()["wrong"] == 0


HOG = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
print(flush=True)
while True:
    end = time.monotonic() + 0.04
    while time.monotonic() < end:
        pass
    time.sleep(0.16)
"""


def test_a_stop_that_a_busy_host_delays_is_tried_again(root: None) -> None:
    """The guest's processor is taken away for 40 of 200 ms; there it cannot stop in the 5 ms of a stop."""
    processors = os.sched_getaffinity(0)
    processor = max(processors)
    words = [sys.executable, "-c", HOG, str(processor)]
    stops = Stops(0.005)

    waits: list[int] = []

    def was_delayed() -> bool:
        time.sleep(0.013 + stops.rest_seconds(one.pid))
        with Process(Target(pid=one.pid, start_ticks=0), Door()) as process:
            waits.extend(patiently(stops, one.pid, partial(stop, process)))
        return stops.failed > 5

    def stop(process: Process) -> None:
        with Threads(process, stops) as threads:
            assert len(threads.all) > 1

    with writers(1) as (one,), subprocess.Popen(words, stdout=subprocess.PIPE) as hog:
        try:
            for thread in Path(f"/proc/{one.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {processor})
            assert hog.stdout
            hog.stdout.readline()
            os.sched_setaffinity(0, processors - {processor} or processors)  # or we would be delayed as the guest is
            wait_true(was_delayed, "stops that were delayed")
            assert len(waits) >= 4 * 20  # it has waited in small steps, and could be told something after each
        finally:
            os.sched_setaffinity(0, processors)
            hog.kill()
        assert one.check()["wrong"] == 0


def test_a_thread_that_stops_as_its_time_is_over_was_kept_by_the_busy_host(
    root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Threads, "_status", lambda *_: None)  # it is looked at right before it stops
    stops = Stops(0.1)
    with writers(1) as (one,), Process(Target(pid=one.pid, start_ticks=0), Door()) as process:
        with pytest.raises(Busy), Threads(process, stops):
            pass
        stops.release_stopped()
        wait_true(lambda: runs_freely(one), "a guest that runs freely")


def test_a_guest_that_could_not_be_given_back_is_tried_again(root: None, no_ksm: Door) -> None:
    """It is tried again even when it is the only one left that has merged pages."""
    with workloads([Mix(equal_bytes=32 * MIB)] * 2, mergeable=False) as (one, other):
        with scanning(no_ksm, REMAP, [one, other]) as backend:
            wait_true(lambda: backend.counters().pages_sharing > 0.95 * 32 * MIB // PAGE, "shared pages")
            os.kill(one.pid, signal.SIGSTOP)
            try:
                turn(backend, "run", 2)
                wait_true(lambda: told(backend, "load-1: it is stopped"), "reason")
                wait_true(lambda: backend.counters().pages_sharing == 0, "pages given back to the other")
                assert MERGED in maps(one)
            finally:
                os.kill(one.pid, signal.SIGCONT)
            wait_true(lambda: MERGED not in maps(one), "pages given back to it, too")
        assert one.wrong_pages() == other.wrong_pages() == 0


def test_what_a_memory_limit_has_no_room_for_stays_merged(root: None, no_ksm: Door) -> None:
    mix = Mix(equal_bytes=32 * MIB)
    with (
        memory_cgroup(f"ksmtuned-py-test-{os.getpid()}") as group,
        workloads([mix], mergeable=False) as (other,),
        Workload("limited", mix, mergeable=False) as one,
    ):
        group.add(one.pid)
        one.wait_ready()
        with scanning(no_ksm, REMAP, [one, other]) as backend:
            wait_true(lambda: backend.counters().pages_sharing > 0.95 * mix.equal_bytes // PAGE, "shared pages")
            group.limit(group.used_bytes() + mix.equal_bytes // 2)
            turn(backend, "run", 2)
            wait_true(lambda: told(backend, "limited: the memory limit of its control group"), "reason")
            wait_true(lambda: MERGED not in maps(other), "pages given back to the other")
            assert one.wrong_pages() == other.wrong_pages() == 0
            assert MERGED in maps(one)


def test_memory_that_is_locked_while_it_is_merged_stays_locked(root: None, no_ksm: Door) -> None:
    with odd("locking") as one, scanning(no_ksm, REMAP, [one], pages_to_scan=300) as backend:
        wait_true(lambda: bool(stores(one)), "first shared pages")
        address, size, done = one.ask("lock").split()
        assert done == "locked"
        wait_passes(backend, 3)
        assert unlocked_bytes(one, int(address), int(size)) == 0
        assert one.check()["wrong"] == 0


def unlocked_bytes(one: Writer, begin: int, size: int) -> int:
    """Returns how much of this memory smaps shows without the flag for locked memory."""
    found, start, end = 0, 0, 0
    for line in Path(f"/proc/{one.pid}/smaps").read_text().splitlines():
        if line.startswith("VmFlags:") and " lo" not in line:
            found += max(0, min(end, begin + size) - max(start, begin))
        elif "-" in line.split()[0] and not line.split()[0].endswith(":"):
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
    return found


def test_memory_that_is_locked_or_protected_or_gone_is_seen() -> None:
    with mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[:] = b"a" * len(memory)
        anchor = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(anchor)
        with Process(Target(pid=os.getpid(), start_ticks=0), Door()) as process:
            (mapping,) = [one for one in process.mappings() if one.start <= address < one.end]
            runs = [PageRun(address, 4, 0, Eligible(mapping, True, ()))]
            second = ctypes.c_void_p(address + PAGE)
            assert change(process, runs) is None
            assert not libc.mlock(second, PAGE)
            assert "locked" in str(change(process, runs))
            assert not libc.munlock(second, PAGE)
            assert change(process, runs) is None
            assert not libc.mprotect(second, PAGE, mmap.PROT_READ)
            assert "protected" in str(change(process, runs))
            assert not libc.mprotect(second, PAGE, mmap.PROT_READ | mmap.PROT_WRITE)
            assert change(process, runs) is None
            assert not libc.munmap(second, PAGE)
            assert "taken it away" in str(change(process, runs))
        del anchor


class Confused(Process):
    """A process in whose list of threads a stranger's number is found once: it was given out again in that moment."""

    stranger = 0

    def names(self, name: str, most: int) -> list[str]:
        found, self.stranger = [str(self.stranger)] if self.stranger else [], 0
        return super().names(name, most) + found


def test_a_thread_of_somebody_else_is_let_go_of(root: None) -> None:
    with writers(1) as (one,), subprocess.Popen(["sleep", "60"]) as stranger:
        stops = Stops(0.05)
        with Confused(Target(pid=one.pid, start_ticks=0), Door()) as process:
            process.stranger = stranger.pid
            with Threads(process, stops) as threads:
                assert stranger.pid not in [thread.number for thread in threads.all]
                assert len(threads.all) > 1
        wait_for(lambda: "TracerPid:\t0\n" in Path(f"/proc/{stranger.pid}/status").read_text(), 5.0, "end of tracing")
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
        stranger.kill()


class Continued(Process):
    """A process that somebody else continues in the moment after its pending signals were looked at."""

    continued = False

    def status(self, name: str = "status") -> dict[str, str]:
        found = super().status(name)
        self.go_on()
        return found

    def go_on(self) -> None:
        if not self.continued:
            os.kill(self.target.pid, signal.SIGCONT)
        self.continued = True


def stop_in_a_window(process: Process) -> None:
    """Stops a guest with SIGSTOP while a thread of it works for us; another thread may take the signal first."""
    with suppress(Refused), Threads(process, Stops(0.05)) as threads:
        ptrace.resume(threads.all[0].number)
        os.kill(process.target.pid, signal.SIGSTOP)
        threads.stop_again(threads.all[0])


def test_who_is_stopped_in_a_window_and_continued_at_its_end_runs_on(root: None) -> None:
    with writers(1) as (one,), Continued(Target(pid=one.pid, start_ticks=0), Door()) as process:
        stop_in_a_window(process)
        process.go_on()
        wait_true(lambda: runs_freely(one), "the guest")
        assert one.check()["wrong"] == 0


def test_who_is_stopped_in_a_window_stays_stopped_until_it_is_continued(root: None) -> None:
    with writers(1) as (one,), Process(Target(pid=one.pid, start_ticks=0), Door()) as process:
        stop_in_a_window(process)
        wait_true(lambda: psutil.Process(one.pid).status() == psutil.STATUS_STOPPED, "the stop")
        os.kill(one.pid, signal.SIGCONT)
        wait_true(lambda: runs_freely(one), "the guest")
        assert one.check()["wrong"] == 0
