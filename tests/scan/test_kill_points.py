"""Killed at every step of a remapping: whichever system call was the last, the guest runs on and has all its bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import psutil

from tests.scan.test_remap import REMAP, Writer, runs_freely, writers
from tests.support.need import need
from tests.support.process import wait_for

ONCE = (sys.executable, "-m", "tests.scan.remap_once")
POINTS = [
    *(("ptrace", number) for number in (*range(1, 130, 9), 150, 200, 300, 700, 2000, 10_000, 40_000)),
    *(("sendto", number) for number in (2, 3, 50, 1000)),
    *(("recvfrom", number) for number in (1, 2, 60, 1500)),
]
"""The first calls take some 60 of ptrace, every window about 30, of which one sendto and one recvfrom."""


def test_the_guest_survives_a_kill_at_every_step(root: None) -> None:
    need(shutil.which("strace") is not None, "strace, to kill a process at a given system call")
    with writers(1) as guests:
        killed = sum(_killed_at(call, number, guests[0]) for call, number in POINTS)
        assert killed >= len(POINTS) / 2


def _killed_at(call: str, number: int, one: Writer) -> bool:
    inject = f"inject={call}:signal=SIGKILL:when={number}"
    done = subprocess.run(
        ["strace", "-o", os.devnull, "-e", f"trace={call}", "-e", inject, *ONCE, str(one.pid)], check=False
    )
    assert done.returncode in (0, -signal.SIGKILL)
    wait_for(lambda: runs_freely(one), 1.0, f"guest that runs freely after a kill at {call} {number}")
    assert one.check()["wrong"] == 0, (call, number)
    return done.returncode != 0


DAEMON = """
import sys, time
from pathlib import Path
from ksmtuned_py.backends.scan.client import ScanBackend
from ksmtuned_py.config import Scan
from ksmtuned_py.model import Guest, Write
settings, pids = Scan.model_validate_json(sys.argv[1]), [int(word) for word in sys.argv[2:]]
backend = ScanBackend(settings)
ticks = [int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) for pid in pids]
backend.watch([Guest(pid=pid, start_ticks=tick, name="guest", kind="") for pid, tick in zip(pids, ticks)])
for name, value in {"pages_to_scan": 100000, "sleep_millisecs": 0, "smart_scan": 0, "run": 1}.items():
    backend.write(Write(knob=name, old=0, new=value))
print(backend.worker_pid, flush=True)
while True:
    time.sleep(0.1)
    backend.counters()
"""


def test_the_worker_ends_with_a_daemon_that_is_killed(root: None) -> None:
    with writers(1) as guests:
        for number in range(10):
            command = [sys.executable, "-c", DAEMON, REMAP.model_dump_json(), str(guests[0].pid)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
                assert daemon.stdout is not None
                worker = int(daemon.stdout.readline())
                time.sleep(0.2 + 0.07 * number)
                daemon.kill()
            wait_for(partial(_ended, worker), 5.0, "end of the worker")
            assert runs_freely(guests[0])
            assert guests[0].check()["wrong"] == 0


def _ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
