"""Events on the real machine wake the daemon at once, although its next tick is ten minutes away."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest

from tests.kernel.conftest import Start
from tests.support.daemon import EVENTS_ONLY, merged
from tests.support.ksmlock import RealKsm
from tests.support.need import need

pytestmark = pytest.mark.kernel

SLEEP = "import time; time.sleep(60)"
ASKS_FOR_MERGING = f"import ctypes; ctypes.CDLL(None).prctl(67, 1, 0, 0, 0); {SLEEP}"  # PR_SET_MEMORY_MERGE
LIMIT_BYTES = 8 * 2**20
READ_OVER_AND_OVER = """
import mmap, os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
with open(sys.argv[2], "rb") as file:
    memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
memory.madvise(mmap.MADV_RANDOM)
while True:
    for begin in range(0, len(memory), mmap.PAGESIZE):
        memory[begin]
"""


@contextmanager
def late_guest(directory: Path) -> Iterator[int]:
    """Run a process whose program has QEMU's name; yields its PID."""
    program = directory / "qemu-system-x86_64"
    program.symlink_to(os.path.realpath(sys.executable))
    with subprocess.Popen([program, "-c", ASKS_FOR_MERGING, "-name", "guest=late"]) as guest:
        try:
            yield guest.pid
        finally:
            guest.kill()


def test_a_guests_arrival_is_boosted_for_at_once(real_ksm: RealKsm, start: Start, tmp_path: Path) -> None:
    """It is looked at when it starts, and then at each tick until it has asked for merging."""
    daemon = start(merged(EVENTS_ONLY, {"daemon": {"tick_seconds": 0.2}}))
    with late_guest(tmp_path):
        status = daemon.wait_status(lambda status: "late" in status["decision"]["reason"], "the late guest")
    assert (status["decision"]["mode"], status["decision"]["rule"]) == ("boost", "news")
    assert (real_ksm.read("run"), real_ksm.read("smart_scan")) == ("1", "1")  # no page is old yet
    assert daemon.end() == 0


def test_any_other_program_wakes_nobody(real_ksm: RealKsm, start: Start) -> None:
    daemon = start(EVENTS_ONLY)
    for _ in range(20):
        subprocess.run(["true"], check=True)
    assert daemon.ticks() == 1
    assert daemon.end() == 0


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """Make a memory cgroup with a limit of a few MiB, in either of the kernel's two hierarchies."""
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    old = (v1 / "memory.limit_in_bytes").exists()
    parent, limit = (v1, "memory.limit_in_bytes") if old else (v2, "memory.max")
    group = parent / f"ksmtuned-py-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(LIMIT_BYTES))
    except OSError:
        if group.exists():
            group.rmdir()
        need(False, "leave to make a memory cgroup")
    yield group
    group.rmdir()


@contextmanager
def thrashing(cgroup: Path) -> Iterator[None]:
    """Run a process that waits for memory, because it reads a file larger than its memory limit over and over."""
    with NamedTemporaryFile(dir="/var/tmp") as file:  # on a disk, which /tmp need not be
        file.write(os.urandom(LIMIT_BYTES * 3 // 2))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # or the cache would be charged to us
        with subprocess.Popen([sys.executable, "-c", READ_OVER_AND_OVER, cgroup, file.name]) as process:
            try:
                yield
            finally:
                process.kill()


def test_a_rise_of_memory_pressure_is_heeded_at_once(real_ksm: RealKsm, start: Start, cgroup: Path) -> None:
    need(os.access("/proc/pressure/memory", os.W_OK), "PSI")
    wary = {"wary_enter_percent": 99, "wary_leave_percent": 100}  # below that, stalls do not count as the host's
    daemon = start(merged(EVENTS_ONLY, {"daemon": {"pressure_trigger_ms": 2}, "adaptive.need": wary}))
    with thrashing(cgroup):
        status = daemon.wait_status(lambda status: "pressure" in status["snapshot"]["woken_by"], "the trigger", 60)
    need_said = next(verdict for verdict in status["decision"]["verdicts"] if verdict["rule"] == "need")
    assert need_said["fired"]
    assert need_said["sentence"].startswith("need is short: ")
    assert daemon.end() == 0
