"""Killed at every step of a remapping: whichever system call was the last, the guest runs on and has all its bytes."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from ksmtuned_py.door import Door
from tests.scan import remap_once
from tests.scan.conftest import scanning
from tests.scan.forkedworkers import FORK, forked_workers
from tests.scan.killed import kill_at
from tests.scan.test_remap import REMAP
from tests.scan.writers import Writer, runs_freely, stores, writers
from tests.support.khugepaged import khugepaged_at_rest
from tests.support.need import need
from tests.support.process import wait_for

POINTS = [
    *(("ptrace", number) for number in (*range(1, 130, 9), 150, 200, 300, 500, 700, 1000, 2000)),
    *(("sendto", number) for number in (2, 3, 50, 500)),
    *(("recvfrom", number) for number in (1, 2, 60, 400)),
]
"""The first calls take some 60 calls of ptrace; every window takes about 30, one sendto and one recvfrom.

A guest of MIB takes at least 2300 of ptrace and 800 of the others until all is given back again.
"""
TAKING_OVER = [
    *((name, 1) for name in ("tend", "merged_mappings", "_opened", "getxattr", "has_pages_from")),
    *(
        (name, 1)
        for name in ("lock", "flock", "pread", "arange", "references", "free_unused", "_free", "_punch_beyond")
    ),
    *((name, 1) for name in ("_clear_up", "parse", "_line", "_take", "sendmsg", "_map", "_back", "note_files")),
    *(("lseek", number) for number in (2, 4)),
    *(("pwrite", number) for number in range(1, 7)),
    *(("resume_to_syscall", number) for number in range(1, 24, 2)),
    *(("set_signal_mask", number) for number in (1, 6, 12)),
]
"""A new worker reads what is merged, and gets a foothold of its own beside the dead one's."""
GIVING_BACK = [
    *((name, 1) for name in ("prepared", "stand", "refuse_without_room", "change", "_set_aside", "_let_others_go")),
    *(("seize", number) for number in (9, 11, 13, 16)),
    *(("keep", number) for number in (1, 2, 4)),
    *(("set_registers", number) for number in (14, 15, 16, 17)),
    *(("set_signal_mask", number) for number in (14, 15, 16, 17)),
    *(("shut_gate", number) for number in (1, 2, 3)),
    *(("resume", number) for number in (2, 3)),
    *(("stage", number) for number in (1, 2, 3, 4, 9, 30)),
    *(("send", number) for number in (1, 2, 3, 4, 60)),
    *(("recv", number) for number in (1, 2, 3, 4, 60)),
    *(("pwrite", number) for number in (7, 8, 9, 20)),
    *(("stop_again", number) for number in (2, 3)),
    *(("detach", number) for number in (9, 13, 14, 15, 16)),
]
"""Beside each piece a copy is made and filled, then moved over it; both are done by the guest."""

MAKING_WHOLE = [
    *((name, 1) for name in ("prepared", "stand", "refuse_without_room", "bring_in", "_set_aside", "change")),
    *((name, number) for name in ("copy_beside", "_huge_copy", "fill", "move_over", "_has_all") for number in (1, 2)),
    *(("stage", number) for number in range(1, 8)),
    *(("send", number) for number in (*range(1, 8), 20)),
    *(("recv", number) for number in (*range(1, 8), 20)),
    *(("pwrite", number) for number in (7, 8, 9)),
    *(("shut_gate", number) for number in (1, 2, 3)),
    *(("stop_again", number) for number in (1, 2)),
    *(("detach", number) for number in (9, 13, 14)),
]
"""A new huge page is mapped, trimmed, filled, and moved over the range."""
PARTS = 5
MIB = 8
A_GUESTS_KILLS, KILLS_OF_HUGE_PAGES = 12, 3
"""How many kills one guest survives. Each leaves it in more pieces, and all that is done to it takes longer."""


def test_the_guest_survives_a_kill_at_every_step(root: None) -> None:
    need(shutil.which("strace") is not None, "strace, to kill a process at a given system call")
    killed = 0
    for points in _in_parts(POINTS, A_GUESTS_KILLS):
        with writers(1, MIB) as (one,):
            killed += sum(_killed_at(call, number, one) for call, number in points)
    assert killed >= len(POINTS) / 2


def _in_parts(points: list[tuple[str, int]], most: int) -> Iterator[list[tuple[str, int]]]:
    return (points[begin : begin + most] for begin in range(0, len(points), most))


def _killed_at(call: str, number: int, one: Writer) -> bool:
    """Kills whoever merges at a system call. Tracing makes all calls slow, and so begins right before the merging."""
    may_begin = FORK.Event()
    process = FORK.Process(target=remap_once.main, args=(one.pid, "both", may_begin.wait))
    process.start()
    with _strace(process.pid or 0, call, f"inject={call}:signal=SIGKILL:when={number}"):
        may_begin.set()
        process.join(60)
    code = process.exitcode
    assert code in (0, -signal.SIGKILL)
    wait_for(lambda: runs_freely(one), 1.0, f"guest that runs freely after a kill at {call} {number}")
    assert one.check()["wrong"] == 0, (call, number)
    return code != 0


@pytest.mark.parametrize("points", [TAKING_OVER, GIVING_BACK], ids=["taking over", "giving back"])
def test_so_it_does_at_every_step_of_taking_over_and_of_giving_back(root: None, points: list[tuple[str, int]]) -> None:
    begin = partial(Writer, "writer", MIB)
    _survives(begin, A_GUESTS_KILLS, points, "back", is_merged=lambda one: bool(stores(one)))


@pytest.mark.parametrize("part", range(PARTS))
def test_so_it_does_while_its_huge_pages_are_made_whole(root: None, part: int) -> None:
    settings = {"WRITER_IN_HUGE_PAGES": "1", "WRITER_EQUAL_OF_64": "8"}
    begin = partial(Writer, "writer", settings=settings)
    with khugepaged_at_rest():
        # What was made whole is merged anew before each, or there would be nothing to be made whole.
        _survives(begin, KILLS_OF_HUGE_PAGES, MAKING_WHOLE[part::PARTS], "whole", is_merged=lambda _: False)


def _survives(
    begin: Callable[[], Writer],
    most: int,
    points: list[tuple[str, int]],
    what: str,
    is_merged: Callable[[Writer], bool],
) -> None:
    """Kills at each of the points whoever does this to a guest, whose pages are merged before; then it is done."""
    killed = 0
    for some in _in_parts(points, most):
        with begin() as one:
            killed += sum(_survived(one, name, number, what, merged=is_merged(one)) for name, number in some)
            for last in dict.fromkeys((what, "back")):
                assert in_a_fork(partial(remap_once.main, one.pid, last)) == 0
            assert not stores(one)
            assert one.check()["wrong"] == 0
    assert killed > 0.8 * len(points)


def _survived(one: Writer, name: str, number: int, what: str, *, merged: bool) -> bool:
    """Returns whether the other process was killed; an AssertionError when the guest has not survived it."""
    if not merged:
        assert in_a_fork(partial(remap_once.main, one.pid, "merge")) == 0
    assert stores(one), f"merged pages before a kill at {name} {number}"
    code = in_a_fork(partial(_until, name, number, one, what))
    wait_for(lambda: runs_freely(one), 5.0, f"guest that runs freely after a kill at {name} {number}")
    assert one.check()["wrong"] == 0, (name, number)
    return code == -signal.SIGKILL


def _until(name: str, number: int, one: Writer, what: str) -> None:
    kill_at(name, number)
    remap_once.main(one.pid, what)


def in_a_fork(work: Callable[[], object]) -> int:
    """Does it in a process of its own, whose start-up a fork saves; returns how that ended."""
    process = FORK.Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


@contextmanager
def _strace(pid: int, call: str, inject: str) -> Iterator[None]:
    """Has the process traced until it ends."""
    words = ["strace", "-o", os.devnull, "-e", f"trace={call}", "-e", inject, "-p", str(pid)]
    status = Path(f"/proc/{pid}/status")
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as tracer:
        wait_for(lambda: f"TracerPid:\t{tracer.pid}\n" in status.read_text(), 5.0, "tracer")
        try:
            yield
            tracer.wait(10)
        finally:
            tracer.terminate()


def test_fifty_kills_of_the_daemon_while_its_worker_merges(root: None) -> None:
    chance = random.Random(2)
    with writers(1) as guests:
        merged = sum(_daemon_killed_after(chance.uniform(0, 0.3), guests[0]) for _ in range(50))
        assert merged >= 25
        assert guests[0].check()["writes"] > 0


def test_the_daemon_is_killed_while_its_worker_gives_back(root: None) -> None:
    chance = random.Random(4)
    with writers(1, 16) as (one,):
        for _ in range(6):
            assert in_a_fork(partial(remap_once.main, one.pid, "merge")) == 0
            assert stores(one)
            _daemon_killed_after(chance.uniform(0, 0.7), one, run=2)
        assert in_a_fork(partial(remap_once.main, one.pid, "back")) == 0
        assert not stores(one)
        assert one.check()["wrong"] == 0


def _daemon_killed_after(seconds: float, one: Writer, run: int = 1) -> bool:
    """Kills a daemon after a time, and returns whether the guest has merged pages. A fork saves its start-up."""
    ours, theirs = FORK.Pipe()
    daemon = FORK.Process(target=_serve, args=(one, theirs, run))
    daemon.start()
    worker = ours.recv()
    time.sleep(seconds)
    daemon.kill()
    daemon.join()
    wait_for(partial(_ended, worker), 20.0, "end of the worker")
    assert runs_freely(one)
    assert one.check()["wrong"] == 0
    return " /memfd:ksmtuned-py-pages" in Path(f"/proc/{one.pid}/maps").read_text()


def _serve(one: Writer, tell: Connection, run: int) -> None:
    """Does what the control loop does: looks ten times a second."""
    with forked_workers(), scanning(Door(), REMAP, [one], sleep_millisecs=0, run=run) as backend:
        tell.send(backend.worker_pid)
        while True:
            time.sleep(0.1)
            backend.counters()


def _ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
