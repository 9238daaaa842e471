"""The kernel backend works on the real kernel, with its refusals, and while ksmd keeps its mutex for long."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from ksmtuned_py.backends.kernel import KernelBackend
from ksmtuned_py.backends.ksmd import find_ksmd
from ksmtuned_py.cli.workload import Mix, workloads
from ksmtuned_py.door import Door
from ksmtuned_py.model import ASIDE, KnobName, KnobValue, Write, WriteResult, WriteStatus
from ksmtuned_py.units import MIB
from tests.support.daemon import QUIET, Daemon, merged, service_manager
from tests.support.ksmlock import RealKsm, knobs
from tests.support.process import wait_for

pytestmark = pytest.mark.kernel

LARGE = Mix(equal_bytes=512 * MIB)
"""The content of large processes. The kernel takes some 0.3 s to give back what two of them merge."""
BUSY = "while True: pass"


@pytest.fixture
def backend(real_ksm: RealKsm) -> Iterator[KernelBackend]:
    """The backend on the real kernel."""
    with closing(KernelBackend(Door())) as backend:
        yield backend


def write(backend: KernelBackend, knob: KnobName, new: KnobValue) -> WriteResult:
    """Write one knob."""
    return backend.write(Write(knob=knob, old=0, new=new))


def merge_all(ksm: RealKsm, pages: int) -> None:
    """Merge so many pages at full speed."""
    for name, value in {"smart_scan": 0, "pages_to_scan": 100_000, "sleep_millisecs": 1, "run": 1}.items():
        ksm.write(name, value)
    ksm.wait_saved(pages, 60)


def test_every_knob_can_be_written_and_reads_back(real_ksm: RealKsm, backend: KernelBackend) -> None:
    before = backend.knobs()
    for knob, value in before.items():
        assert write(backend, knob, value).status is WriteStatus.OK
    assert backend.knobs() == before
    assert {name: str(value) for name, value in before.items() if name not in ASIDE} == knobs()


def test_what_the_kernel_refuses(real_ksm: RealKsm, backend: KernelBackend) -> None:
    assert write(backend, "advisor_mode", "scan-time").status is WriteStatus.OK
    refused = write(backend, "pages_to_scan", 500)
    assert (refused.status, refused.detail) == (
        WriteStatus.REFUSED,
        "EINVAL: the kernel does not take this value now (is its advisor on?)",
    )
    assert write(backend, "max_page_sharing", 1).detail.startswith("EINVAL: ")


def test_busy_while_merged_and_unmerged_in_a_child(real_ksm: RealKsm, backend: KernelBackend) -> None:
    with workloads([Mix(equal_bytes=8 * MIB, zero_bytes=8 * MIB)] * 2) as guests:
        merge_all(real_ksm, 4000)
        real_ksm.write("run", 0)  # or ksmd may keep its mutex for longer than a write waits
        refused = write(backend, "max_page_sharing", 20)
        assert (refused.status, refused.detail) == (WriteStatus.REFUSED, "EBUSY: pages are still merged")
        assert write(backend, "run", 2).status is WriteStatus.PENDING
        wait_for(lambda: write(backend, "run", 2).status is WriteStatus.OK, 30, "end of unmerging")
        assert backend.counters().saved_pages == 0
        assert write(backend, "max_page_sharing", 20).status is WriteStatus.OK
        assert [guest.wrong_pages() for guest in guests] == [0, 0]


def test_unmerging_that_is_aborted_leaves_run_at_0(real_ksm: RealKsm, backend: KernelBackend) -> None:
    with workloads([LARGE] * 2) as guests:
        merge_all(real_ksm, 120_000)
        assert write(backend, "run", 2).status is WriteStatus.PENDING
        wait_for(lambda: real_ksm.read("run") == "2", 10, "unmerging", every_seconds=0.001)
        backend.abort()
        wait_for(lambda: real_ksm.read("run") == "0", 10, "end of the child")
        assert real_ksm.number("pages_shared") > 0
        assert [guest.wrong_pages() for guest in guests] == [0, 0]


@contextmanager
def starved_ksmd() -> Iterator[None]:
    """Starve ksmd in a batch for a with block, on one core with a busy process that gets all but 1/70 of it."""
    pid = find_ksmd(Door())
    assert pid
    ksmd = psutil.Process(pid)
    worked = ksmd.cpu_times().system
    wait_for(lambda: ksmd.cpu_times().system >= worked + 0.05, 10, "batch of ksmd")  # it may have waited for a core
    nice, cores = ksmd.nice(), ksmd.cpu_affinity()
    with subprocess.Popen([sys.executable, "-c", BUSY]) as hog:
        psutil.Process(hog.pid).cpu_affinity([0])
        ksmd.nice(19)
        ksmd.cpu_affinity([0])
        try:
            yield
        finally:
            hog.kill()
            ksmd.nice(nice)
            ksmd.cpu_affinity(cores)


def is_pending(status: dict[str, Any], knob: str) -> bool:
    """Whether the last tick left a write of that knob waiting."""
    results = status["outcome"]["results"]
    return any((one["write"]["knob"], one["status"]) == (knob, "pending") for one in results)


def test_a_batch_of_seconds_holds_up_no_tick_and_no_watchdog(real_ksm: RealKsm, tmp_path: Path) -> None:
    assert os.sched_getaffinity(0) >= {0}
    sections = merged(
        QUIET,
        {"daemon": {"tick_seconds": 0.2, "idle_tick_seconds": 0.2}, "policy": {"name": "fixed"}, "fixed": {"run": 0}},
    )
    # No batch is longer than a pass.
    with workloads([Mix(unique_bytes=1024 * MIB)]), service_manager(tmp_path) as manager, ExitStack() as afterwards:
        for name, value in {"pages_to_scan": 1_000_000, "sleep_millisecs": 0, "run": 1}.items():
            real_ksm.write(name, value)
        with starved_ksmd():
            daemon = afterwards.enter_context(Daemon(tmp_path / "daemon", sections, environment=manager.environment))
            daemon.wait_status(lambda status: is_pending(status, "run"), "a write of run that waits")
            wait_for(lambda: manager.heard().count("WATCHDOG=1") >= 6, 20, "six ticks")
            assert real_ksm.read("run") == "1"  # the write still waits
            daemon.process.terminate()
        assert daemon.wait(20) == 0
        assert real_ksm.read("run") == "1"  # as it was found, so no write of ours came after that
