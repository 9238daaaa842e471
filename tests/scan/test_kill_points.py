"""Killed at every step of a remapping: whichever system call was the last, the guest runs on and has all its bytes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from ksmtuned_py.door import Door
from tests.scan.conftest import scanning
from tests.scan.test_remap import REMAP
from tests.scan.writers import Writer, runs_freely, writers
from tests.support.need import need
from tests.support.process import wait_for

FORK = get_context("fork")
ONCE = (sys.executable, "-m", "tests.scan.remap_once")
POINTS = [
    *(("ptrace", number) for number in (*range(1, 130, 9), 150, 200, 300, 700, 2000, 10_000, 40_000)),
    *(("sendto", number) for number in (2, 3, 50, 1000)),
    *(("recvfrom", number) for number in (1, 2, 60, 1500)),
]
"""The first calls take some 60 calls of ptrace; every window takes about 30, one sendto and one recvfrom."""


def test_the_guest_survives_a_kill_at_every_step(root: None) -> None:
    need(shutil.which("strace") is not None, "strace, to kill a process at a given system call")
    with writers(1) as guests:
        killed = sum(_killed_at(call, number, guests[0]) for call, number in POINTS)
        assert killed >= len(POINTS) / 2


def _killed_at(call: str, number: int, one: Writer) -> bool:
    inject = f"inject={call}:signal=SIGKILL:when={number}"
    done = subprocess.run(
        ["strace", "-o", os.devnull, "-e", f"trace={call}", "-e", inject, *ONCE, str(one.pid), "both"], check=False
    )
    assert done.returncode in (0, -signal.SIGKILL)
    wait_for(lambda: runs_freely(one), 1.0, f"guest that runs freely after a kill at {call} {number}")
    assert one.check()["wrong"] == 0, (call, number)
    return done.returncode != 0


def test_fifty_kills_of_the_daemon_while_its_worker_merges(root: None) -> None:
    chance = random.Random(2)
    with writers(1) as guests:
        merged = sum(_daemon_killed_after(chance.uniform(0, 0.5), guests[0]) for _ in range(50))
        assert merged >= 25
        assert guests[0].check()["writes"] > 0


def _daemon_killed_after(seconds: float, one: Writer) -> bool:
    """Kills a daemon after a time, and returns whether the guest has merged pages. A fork saves its start-up."""
    ours, theirs = FORK.Pipe()
    daemon = FORK.Process(target=_serve, args=(one, theirs))
    daemon.start()
    worker = ours.recv()
    time.sleep(seconds)
    daemon.kill()
    daemon.join()
    wait_for(partial(_ended, worker), 20.0, "end of the worker")
    assert runs_freely(one)
    assert one.check()["wrong"] == 0
    return " /memfd:ksmtuned-py-pages" in Path(f"/proc/{one.pid}/maps").read_text()


def _serve(one: Writer, tell: Connection) -> None:
    """Does what the control loop does: looks ten times a second."""
    with scanning(Door(), REMAP, [one], sleep_millisecs=0) as backend:
        tell.send(backend.worker_pid)
        while True:
            time.sleep(0.1)
            backend.counters()


def _ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
