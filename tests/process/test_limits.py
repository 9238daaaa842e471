"""After hundreds of ticks the real process still takes little of the host, and no more than before."""

import os
import resource
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from ksmtuned_py.publish.web import CLIENTS_MAX
from ksmtuned_py.units import GIB, MIB
from tests.process.conftest import Start
from tests.process.test_signals import knobs
from tests.support.daemon import QUICK, QUIET, free_port, merged, scrape
from tests.support.need import need
from tests.support.pidscgroup import few_tasks
from tests.support.trees import FakeGuest, add_guest, meminfo, put

RESIDENT_BYTES_MAX = 64 * MIB
FAST = {"tick_seconds": 0.01, "idle_tick_seconds": 0.01}


@pytest.fixture(autouse=True)
def short(root: Path) -> None:
    """Has the host's memory short, for else the daemon saves on ticks, and hundreds of them take minutes."""
    put(root, "proc/meminfo", meminfo(available_bytes=GIB))


@contextmanager
def soft_limit(descriptors: int) -> Iterator[None]:
    """Limit the descriptors of programs that are started in a with block, as most systems do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_memory_and_open_files_are_bounded(root: Path, start: Start) -> None:
    for number in range(9):
        add_guest(root, FakeGuest(pid=2000 + number, name=f"more-{number}"))
    port = free_port()
    daemon = start(merged(QUIET, {"daemon": FAST, "metrics": {"address": f"127.0.0.1:{port}"}}))
    process = psutil.Process(daemon.pid)
    daemon.wait_ticks(50)
    early_files, early_threads = process.num_fds(), process.num_threads()
    for _ in range(5):
        daemon.wait_ticks(60)
        scrape(port)
    daemon.reload("reloaded: nothing changed")
    daemon.wait_ticks(10)
    assert daemon.ticks() > 350
    assert process.memory_info().rss <= RESIDENT_BYTES_MAX
    assert process.num_fds() <= early_files + 2  # a connection of ours may linger, and the status file be open
    assert process.num_threads() <= early_threads + 2  # some are started for one slow answer of /proc
    assert daemon.end() == 0


def test_guests_that_come_and_go_leave_no_open_files(root: Path, start: Start) -> None:
    daemon = start(merged(QUIET, {"daemon": FAST}))
    process = psutil.Process(daemon.pid)
    daemon.wait_ticks(10)
    before = process.num_fds()
    for number in range(20):
        guest = root / f"proc/{3000 + number}"
        add_guest(root, FakeGuest(pid=3000 + number, name=f"brief-{number}", start_ticks=number))
        daemon.wait_status(lambda status: len(status["snapshot"]["guests"]) == 2, "two guests")
        for file in guest.iterdir():
            file.unlink()
        guest.rmdir()
        daemon.wait_status(lambda status: len(status["snapshot"]["guests"]) == 1, "one guest")
    assert process.num_fds() <= before + 1
    assert daemon.status()["snapshot"]["problems"] == []


def test_idle_clients_take_nothing_from_a_thousand_guests(root: Path, start: Start) -> None:
    before = knobs(root)
    for number in range(1000):
        add_guest(root, FakeGuest(pid=2000 + number, name=f"guest-{number}"))
    port = free_port()
    with soft_limit(1024):
        daemon = start(merged(QUICK, {"metrics": {"address": f"127.0.0.1:{port}"}}))
    soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    assert soft == hard > 1024
    process = psutil.Process(daemon.pid)
    daemon.wait_status(lambda status: len(status["snapshot"]["guests"]) == 1001, "all guests")
    files = process.num_fds()
    with ExitStack() as clients:
        for _ in range(200):
            clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        daemon.wait_ticks(5)
        assert scrape(port)
        assert process.num_fds() <= files + CLIENTS_MAX + 2
        assert "tick failed" not in daemon.output()
        assert daemon.end() == 0
    assert knobs(root) == before
    assert len(daemon.output().splitlines()) < 20


def always_open(pid: int) -> set[int]:
    """Returns a process's descriptors without those that a tick opens and closes again."""
    looks = list[set[int]]()
    for _ in range(50):
        looks.append({int(file.name) for file in Path(f"/proc/{pid}/fd").iterdir()})
        time.sleep(0.01)
    return set.intersection(*looks)


@pytest.mark.parametrize("guests", [0, 1])
def test_descriptors_that_ran_out_do_not_keep_the_knobs_from_being_put_back(
    root: Path, start: Start, guests: int
) -> None:
    """Without a guest there is no descriptor on one that could be closed for that."""
    if not guests:
        shutil.rmtree(root / "proc/1001")
    before = knobs(root)
    daemon = start(QUICK)
    used = always_open(daemon.pid)
    lowest_free = next(number for number in range(len(used) + 1) if number not in used)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (lowest_free, lowest_free))
    assert daemon.wait(20.0) == 1  # no tick can be completed
    assert "Too many open files" in daemon.output()
    assert knobs(root) == before
    assert "Traceback" not in daemon.output()


def test_threads_that_ran_out_end_nothing_and_the_knobs_are_put_back(root: Path, start: Start) -> None:
    """Any user can have processes that do not answer, with a file system of its own (FUSE)."""
    need(os.geteuid() == 0, "root, to limit what it may have")
    before = knobs(root)
    daemon = start(merged(QUICK, {"daemon": {"on_exit": "stop"}}))
    with few_tasks("ksmtuned-few-tasks", daemon.pid, more=4):
        for pid in range(2000, 2030):
            add_guest(root, FakeGuest(pid=pid, name="", comm="cp", command=("cp",), mergeable=False))
            (root / f"proc/{pid}/cmdline").unlink()
            os.mkfifo(root / f"proc/{pid}/cmdline")
        daemon.wait_status(lambda status: any("discovery" in one for one in status["snapshot"]["problems"]), "silence")
        daemon.wait_ticks(20)
        assert knobs(root) != before
        assert daemon.end() == 0
    assert "tick failed" not in daemon.output()
    assert knobs(root) == {**before, "run": "0"}
