"""A boost lasts until the pages of older guests in huge pages could meet, which they do late."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from ksmtuned_py.cli.workload import Mix, workloads
from ksmtuned_py.units import MIB
from tests.kernel.conftest import Start
from tests.support.daemon import MEMORY_FIRST, QUIET, merged
from tests.support.hugeguest import mergeable_pages
from tests.support.ksmlock import RealKsm
from tests.support.need import need
from tests.support.process import wait_for

pytestmark = pytest.mark.kernel

GUEST_MIB = 512
SLOW = {"pages_to_scan": 100, "sleep_millisecs": 20, "run": 1}
GUESTS_FIRST = merged(QUIET, {"daemon": {"tick_seconds": 0.2, "idle_tick_seconds": 0.2}})
TICKS = merged(GUESTS_FIRST, MEMORY_FIRST)


@contextmanager
def huge_guests(count: int) -> Iterator[None]:
    words = [sys.executable, "-m", "tests.support.hugeguest", str(GUEST_MIB)]
    with ExitStack() as stack:
        guests = [
            stack.enter_context(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for _ in range(count)
        ]
        for guest in guests:
            assert guest.stdout
            assert guest.stdout.readline() == b"ready\n"
        yield


def in_the_middle_of_a_pass(ksm: RealKsm) -> None:
    """Stop ksmd within a pass over processes that have ended since, so that the end of that pass finds nothing."""
    with workloads([Mix(unique_bytes=64 * MIB)] * 2):
        begun = ksm.number("pages_scanned")
        for name, value in SLOW.items():
            ksm.write(name, value)
        wait_for(lambda: ksm.number("pages_scanned") > begun + 500, 10, "a pass under way")
        ksm.write("run", 0)


def test_what_can_merge_is_merged(real_ksm: RealKsm, start: Start) -> None:
    in_the_middle_of_a_pass(real_ksm)
    with huge_guests(2):
        daemon = start(TICKS)
        daemon.wait_status(lambda status: status["decision"]["mode"] in ("cruise", "rest"), "the end of the boost", 120)
        assert real_ksm.saved_pages() >= 0.9 * mergeable_pages(GUEST_MIB)


def test_where_memory_is_plenty_none_is_split_until_the_profile_wants_it(real_ksm: RealKsm, start: Start) -> None:
    need(psutil.virtual_memory().available > 0.4 * psutil.virtual_memory().total, "memory to spare")
    with huge_guests(2):
        daemon = start(GUESTS_FIRST)
        begun = daemon.status()["snapshot"]["clock"]["monotonic_seconds"]
        daemon.wait_status(lambda status: status["snapshot"]["clock"]["monotonic_seconds"] > begun + 5, "five seconds")
        status = daemon.status()
        assert status["decision"]["rule"] == "plenty"
        assert status["decision"]["reason"].startswith("leaving alone: ")
        assert real_ksm.read("run") == "0"
        assert real_ksm.saved_pages() == 0
        daemon.reload("reloaded: adaptive.profile", TICKS)
        real_ksm.wait_saved(round(0.9 * mergeable_pages(GUEST_MIB)), 120)


def test_what_their_splitting_frees_is_a_gain(real_ksm: RealKsm, start: Start) -> None:
    need("swpout_zero" in Path("/proc/vmstat").read_text(), "Linux 6.12, as that line, too")
    with huge_guests(2):
        start(TICKS).wait_status(_tells_of_splits, "a pass that gained by splits", 120)


def _tells_of_splits(status: dict[str, Any]) -> bool:
    return any("from huge pages that were split" in verdict["sentence"] for verdict in status["decision"]["verdicts"])
