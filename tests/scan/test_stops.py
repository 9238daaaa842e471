"""How long a guest stands still is bounded, whatever keeps its threads, the host or the worker from running."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from ksmtuned_py.backends.scanlink import for_scanner
from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.guests.cgroups import keeps_a_kill_waiting
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.remap.foothold.area import Operation
from ksmtuned_py.scanner.remap.foothold.session import Session, Window
from ksmtuned_py.scanner.remap.processors.architecture import NR
from ksmtuned_py.scanner.remap.processors.layout import END
from ksmtuned_py.scanner.remap.share.remapper import Remapper
from ksmtuned_py.scanner.remap.share.store import Store
from ksmtuned_py.scanner.remap.stop.stops import Busy, Stops
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.scanner.worker import merger_for
from tests.scan.conftest import result, scanning, told, wait_passes, wait_true
from tests.scan.test_hostile import odd
from tests.scan.test_lively import beside_others
from tests.scan.test_odd_guests import left_behind
from tests.scan.test_remap import REMAP
from tests.scan.test_tricks import SLOW, merge_once, merged_bytes, target
from tests.scan.writers import Writer, runs_freely, stores, writers
from tests.support.need import need
from tests.support.process import wait_for

HOG_SECONDS = 0.4
HOG = f"""
import os, sys, time
os.sched_setaffinity(0, {{int(sys.argv[1])}})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
print(flush=True)
sys.stdin.readline()
end = time.monotonic() + {HOG_SECONDS}
print(flush=True)
while time.monotonic() < end:
    pass
"""
NEW_PAGE: list[Operation] = [(NR["mmap"], (0, 4096, 3, 0x22, -1, 0), END, END)]


@contextmanager
def on_one_processor(one: Writer) -> Iterator[subprocess.Popen[str]]:
    """Has the guest run on one processor, which it shares with a program that takes all of it when it is told to."""
    processors = os.sched_getaffinity(0)
    need(len(processors) > 1, "two processors: one for the guest, and one for who stops it")
    processor = max(processors)
    for thread in Path(f"/proc/{one.pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {processor})
    words = [sys.executable, "-c", HOG, str(processor)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hog:
        assert hog.stdout
        hog.stdout.readline()
        os.sched_setaffinity(0, processors - {processor})
        try:
            yield hog
        finally:
            os.sched_setaffinity(0, processors)
            hog.kill()


def test_who_gets_no_processor_for_what_it_is_told_runs_on_without_it(root: None) -> None:
    stops = Stops(0.05)
    with (
        writers(1, 16) as (one,),
        closing(Store("ksmtuned-py-pages-test", 0)) as store,
        Process(Target(pid=one.pid, start_ticks=0), Door()) as process,
        on_one_processor(one) as hog,
    ):
        session = result(Session.begin(process, store.readable, stops))
        with pytest.raises(Busy, match="got no processor"), session.window(process) as window:
            take_processor(hog, window)
        assert stops.seconds[-1] < HOG_SECONDS / 2
        time.sleep(stops.rest_seconds(one.pid))
        with session.window(process) as window:
            before = left_behind(one), len(process.mappings())
            address = window.run(NEW_PAGE)[0]  # what it was told before is not done now
            assert len(process.mappings()) - before[1] <= 1
            assert window.run([(NR["munmap"], (address, 4096), END, END)]) == [0]
        session.close()
        assert one.check()["wrong"] == 0


def take_processor(hog: subprocess.Popen[str], window: Window) -> None:
    """Has the guest's processor taken away right before it is told something."""
    assert hog.stdin
    assert hog.stdout
    hog.stdin.write("\n")
    hog.stdin.flush()
    hog.stdout.readline()
    window.run(NEW_PAGE)


@contextmanager
def waiting(one: Writer) -> Iterator[None]:
    """Has a thread of the guest wait in the kernel, where it cannot be stopped."""
    one.ask("wait")
    (child,) = wait_for(lambda: living_children(one), 5.0, "child that it waits for")
    try:
        yield
    finally:
        child.kill()


def living_children(one: Writer) -> list[psutil.Process]:
    return [child for child in psutil.Process(one.pid).children() if child.status() != psutil.STATUS_ZOMBIE]


def test_who_could_be_stopped_in_between_is_left_alone_for_a_second_and_not_ever_longer(root: None) -> None:
    """Otherwise one that cannot be stopped now and then, as while it forks, would keep its merged pages for long."""
    remapper = Remapper(Door(), for_scanner(SLOW))
    with odd("waiting") as one, Process(target(one), Door()) as process:
        merge_once(remapper, one)
        remapper._stops.took(one.pid, 60.0)
        assert "ten times as long" in str(result(remapper.give_back(process)))
        assert remapper._stops.left_alone.is_due(one.pid)  # it was stopped, if for too long
        for _ in range(3):
            remapper._stops.took(one.pid, 0.0)  # no rest is left
            steps = remapper.give_back(process)
            before = merged_bytes(one, 0, 1 << 47)
            assert any(merged_bytes(one, 0, 1 << 47) < before for _ in steps)
            with waiting(one):
                assert "waits for a device" in str(result(steps))
            wait_for(lambda: runs_freely(one), 5.0, "guest that nobody traces any more")
            time.sleep(1.1)
        wait_true(lambda: result(remapper.give_back(process)) is None, "pages given back")
        assert not stores(one)
        assert one.check()["wrong"] == 0


def test_a_worker_that_is_stopped_while_a_guest_stands_still_is_ended(root: None, no_ksm: Door) -> None:
    with writers(1) as (one,), scanning(no_ksm, REMAP, [one], sleep_millisecs=0) as backend:
        worker = backend.worker_pid
        wait_true(lambda: is_stopped_in_a_stop(one, worker), "a worker that has stopped itself in a stop")
        wait_for(lambda: runs_freely(one), 10.0, "guest that runs freely")
        wait_true(lambda: bool(backend.counters()) and backend.restarts == 1, "the end of the worker")
        assert one.check()["wrong"] == 0


def is_stopped_in_a_stop(one: Writer, worker: int) -> bool:
    """Stops the worker when the guest is seen traced by it; whether the guest is still traced by it then."""
    deadline = time.monotonic() + 1
    traced = f"TracerPid:\t{worker}\n"
    status = Path(f"/proc/{one.pid}/status")
    while traced not in status.read_text():
        if time.monotonic() > deadline:
            return False
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: "State:\tT" in Path(f"/proc/{worker}/status").read_text(), 5.0, "worker that is stopped")
    if traced in status.read_text():
        return True
    os.kill(worker, signal.SIGCONT)
    return False


def test_a_guest_that_forbids_itself_our_code_lives(root: None, no_ksm: Door) -> None:
    with odd("forbidding") as one, beside_others(no_ksm, one) as (backend, _):
        wait_true(lambda: bool(stores(one)), "shared pages")
        assert one.ask("forbid") == "0\n"
        wait_true(lambda: told(backend, "forbidding: it cannot run our code (Segmentation fault)"), "reason")
        wait_passes(backend, 2)
        assert one.check()["wrong"] == 0


def test_a_thread_with_open_files_of_its_own_is_a_reason(root: None, no_ksm: Door) -> None:
    with odd("unsharing", "unshared") as one, beside_others(no_ksm, one) as (backend, _):
        wait_true(lambda: told(backend, "unsharing: one of its threads has open files of its own"), "reason")
        assert not stores(one)
        assert one.check()["wrong"] == 0


def test_what_was_done_in_a_guest_before_an_error_of_ours_is_undone(root: None) -> None:
    with writers(1, 16) as (one,), Process(Target(pid=one.pid, start_ticks=0), Door()) as process:
        before = left_behind(one)
        with pytest.raises(OSError, match="Bad file descriptor"):
            result(Session.begin(process, 1 << 20, Stops(0.05)))
        assert left_behind(one) == before
        assert one.check()["wrong"] == 0


def test_guests_for_which_no_descriptor_is_left_are_refused(root: None, no_ksm: Door) -> None:
    with writers(3, 16) as guests, scanning(no_ksm, REMAP, guests) as backend:
        most = len(list(Path(f"/proc/{backend.worker_pid}/fd").iterdir())) + 64
        resource.prlimit(backend.worker_pid, resource.RLIMIT_NOFILE, (most, most))
        wait_true(lambda: told(backend, "the scan worker may have no more files open"), "reason")
        wait_passes(backend, 2)
        assert backend.restarts == 0


def test_a_proc_of_another_namespace_is_a_reason(root: None) -> None:
    code = (
        "from ksmtuned_py.backends.scanlink import for_scanner; from ksmtuned_py.config import Scan;"
        "from ksmtuned_py.door import Door; from ksmtuned_py.scanner.worker import merger_for;"
        "print(merger_for(for_scanner(Scan(reclaim='remap')), Door()))"
    )
    assert "None)" in run(code)
    assert "PID namespace" in run(code, "unshare", "--pid", "--fork")


def test_a_freezer_that_a_kill_does_not_end_is_a_reason(tmp_path: Path) -> None:
    """Where the worker is frozen in a stop, the kernel has to end it, or its guest would stand still as long."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/thread-self").symlink_to(f"{os.getpid()}/task/1")
    (tmp_path / "proc/self/cgroup").write_text("6:freezer:/docker/7\n0::/system.slice/ksmtuned-py.service\n")
    merger, reason = merger_for(for_scanner(Scan(reclaim="remap")), Door(str(tmp_path)))
    assert merger is None
    assert "freezer of cgroup v1" in str(reason)
    assert not keeps_a_kill_waiting("6:freezer:/\n0::/system.slice/ksmtuned-py.service\n")


def run(code: str, *before: str) -> str:
    return subprocess.run([*before, sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
