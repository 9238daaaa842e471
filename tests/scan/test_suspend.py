"""Guests with io_uring and native AIO are remapped while they are suspended, and none is ever left so."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ksmtuned_py.backends.scan.client import ScanBackend
from ksmtuned_py.backends.scan.remap.holdnote import NOTES
from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from tests.scan.conftest import scanning, turn, wait_passes, wait_true
from tests.scan.diskguests import EQUAL_BYTES, DiskGuest, disk_guests
from tests.support.process import wait_for
from tests.support.qemu import need_qemu

pytestmark = pytest.mark.qemu
REMAP = Scan(reclaim="remap", remap_guests=("disk-*",), split_huge_below_percent=100)
SUSPEND = REMAP.model_copy(update={"suspend_guests": ("disk-*",)})
SECONDS = 300.0
"""A guest is suspended for a tenth of the time only: 15 s on a quiet machine."""
NAMES = ["disk-1", "disk-2"]


@pytest.fixture(scope="module", params=["io_uring", "native"])
def guests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[DiskGuest]]:
    """Two guests that work with their disks all the time: files with io_uring, block devices with native AIO."""
    need_qemu()
    block = request.param == "native"
    with disk_guests(NAMES, tmp_path_factory.mktemp("guests"), request.param, block=block) as found:
        for one in found:  # busy on both cores of a small machine, they would leave the worker none
            for thread in psutil.Process(one.pid).threads():
                os.setpriority(os.PRIO_PROCESS, thread.id, 15)
        yield found


def all_run(guests: list[DiskGuest]) -> bool:
    """Whether none is suspended."""
    return all(one.state == "running" for one in guests)


def shared(backend: ScanBackend) -> bool:
    """Whether most of what is equal is shared."""
    return backend.counters().pages_sharing * 4096 >= 0.9 * EQUAL_BYTES


def told(backend: ScanBackend, reason: str) -> bool:
    """Whether a guest is refused for that."""
    return any(reason in one["refusal"] for one in backend.guests)


def give_back(backend: ScanBackend) -> None:
    """Undoes all of it, for the next test."""
    turn(backend, "run", 2)
    wait_for(lambda: backend.counters().pages_sharing == 0, SECONDS, "pages given back")


def test_they_are_refused_unless_they_may_be_suspended(root: None, no_ksm: Door, guests: list[DiskGuest]) -> None:
    with scanning(no_ksm, REMAP, guests) as backend:
        wait_passes(backend, 4)
        assert backend.counters().pages_sharing == 0
        refused = [problem for problem in backend.problems if "may write to its memory at any time" in problem]
        assert [problem.partition(":")[0] for problem in refused] == NAMES


def test_they_share_while_their_disks_are_at_work(root: None, no_ksm: Door, guests: list[DiskGuest]) -> None:
    with scanning(no_ksm, SUSPEND, guests) as backend:
        before = [one.rounds() for one in guests]
        wait_for(lambda: shared(backend), SECONDS, "shared pages")
        print(backend.window_milliseconds, backend.problems)
        assert 0 < backend.window_milliseconds["suspended_p50"] < 1000
        for one, rounds in zip(guests, before, strict=True):
            wait_for(lambda one=one, rounds=rounds: one.rounds() > rounds, 60.0, "work with the disk")  # type: ignore[misc] # mypy cannot infer a lambda's default
            assert one.checksums_inside() == one.checksums
        give_back(backend)
    assert all_run(guests)
    for one in guests:
        one.rounds()
        assert one.checksums_inside() == one.checksums


def test_who_was_paused_by_somebody_else_stays_so(root: None, no_ksm: Door, guests: list[DiskGuest]) -> None:
    guests[0].ask("stop")
    try:
        with scanning(no_ksm, SUSPEND, guests) as backend:
            wait_true(lambda: told(backend, "does not run: its state is 'paused'"), "reason")
            wait_passes(backend, 3)
            assert guests[0].state == "paused"
    finally:
        guests[0].ask("cont")


def test_a_monitor_that_somebody_else_has_is_a_reason(root: None, no_ksm: Door, guests: list[DiskGuest]) -> None:
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        for taken, path in zip((one, other), guests[0].monitors, strict=True):
            taken.connect(str(path))
        with scanning(no_ksm, SUSPEND, guests) as backend:
            wait_true(lambda: told(backend, "somebody else is connected"), "reason")


def test_nobody_stays_suspended_when_the_worker_is_killed(root: None, no_ksm: Door, guests: list[DiskGuest]) -> None:
    killed_while_suspended(no_ksm, guests, 8, lambda backend: [backend.worker_pid])


def test_nobody_stays_suspended_when_the_resumer_is_killed(root: None, no_ksm: Door, guests: list[DiskGuest]) -> None:
    killed_while_suspended(no_ksm, guests, 4, resumers)


def test_nobody_stays_suspended_when_both_are_killed(root: None, no_ksm: Door, guests: list[DiskGuest]) -> None:
    killed_while_suspended(no_ksm, guests, 4, lambda backend: [*resumers(backend), backend.worker_pid])


def test_restore_resumes_whom_all_that_were_killed_left_suspended(
    root: None, no_ksm: Door, guests: list[DiskGuest], tmp_path: Path
) -> None:
    """With no daemon left that would start another worker."""
    chance, owed = random.Random(9), 0
    for _ in range(4):
        with scanning(no_ksm, SUSPEND, guests) as backend:
            kill_in_a_suspension(
                backend, lambda backend: [*resumers(backend), backend.worker_pid], chance.uniform(0, 0.02)
            )
            owed += any(NOTES.glob("*"))
            command = [sys.executable, "-m", "ksmtuned_py", "restore", "--runtime-dir", str(tmp_path)]
            subprocess.run(command, check=True)
            assert (all_run(guests), list(NOTES.glob("*"))) == (True, [])
    assert owed


def resumers(backend: ScanBackend) -> list[int]:
    """Those of the backend's worker."""
    with suppress(psutil.NoSuchProcess):
        found = psutil.Process(backend.worker_pid).children()
        return [one.pid for one in found if "rescue" not in one.cmdline()]
    return []


def killed_while_suspended(
    door: Door, guests: list[DiskGuest], times: int, victims: Callable[[ScanBackend], list[int]]
) -> None:
    """So many kills while one of them is suspended, or about to be, or just resumed: then they all run."""
    chance = random.Random(times)
    for _ in range(times):
        with scanning(door, SUSPEND, guests, run=chance.choice([1, 2]), sleep_millisecs=0) as backend:
            kill_in_a_suspension(backend, victims, chance.uniform(0, 0.06))
            # Asked for its counters, as at each tick, the backend starts another worker where one was killed.
            wait_for(lambda: bool(backend.counters()) and all_run(guests), 5.0, "guests that run")
    assert all(one.checksums_inside() == one.checksums for one in guests)
    assert all(one.rounds() > 0 for one in guests)


def kill_in_a_suspension(backend: ScanBackend, victims: Callable[[ScanBackend], list[int]], seconds: float) -> None:
    """Kills them so long after a suspension was noted."""
    wait_true(lambda: backend.worker_pid > 0 and any(NOTES.glob("*")), "suspension")
    time.sleep(seconds)
    for pid in victims(backend):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
