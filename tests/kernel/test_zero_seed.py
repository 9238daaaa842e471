"""Huge pages of zeros are given back in a few passes, where ksmd by itself gives back one in each."""

from contextlib import closing
from pathlib import Path

import pytest

from ksmtuned_py.backends.zeroseed import ZeroSeed
from ksmtuned_py.cli.workload import Mix, workloads
from ksmtuned_py.model import Knobs, Run
from ksmtuned_py.units import MIB
from tests.kernel.conftest import Start
from tests.support.daemon import MEMORY_FIRST, QUIET, Sections, merged
from tests.support.khugepaged import khugepaged_at_rest
from tests.support.ksmlock import RealKsm
from tests.support.process import wait_for
from tests.support.smaps import huge_bytes, is_mergeable
from tests.support.snapshots import snapshot

pytestmark = pytest.mark.kernel

GUESTS, ZERO_BYTES, PASSES = 2, 32 * MIB, 10
"""So few passes that ksmd by itself would give back less than a third of the huge pages of zeros."""
ALL_BYTES = GUESTS * ZERO_BYTES
TICKS = merged(QUIET, MEMORY_FIRST, {"daemon": {"tick_seconds": 0.2, "idle_tick_seconds": 0.2}})
MIX = Mix(equal_bytes=16 * MIB, unique_bytes=16 * MIB, zero_bytes=ZERO_BYTES)
FAST = {"sleep_millisecs": 1, "pages_to_scan": 20_000, "smart_scan": 0, "use_zero_pages": 0, "run": 1}


def test_a_few_passes_give_them_all_back(real_ksm: RealKsm) -> None:
    with khugepaged_at_rest(), closing(ZeroSeed()) as seed:
        for name, value in FAST.items():
            real_ksm.write(name, value)
        wait_for(lambda: is_merged(real_ksm, seed), 60, "merged pages of zeros")
        with workloads([MIX] * GUESTS, huge_pages=True) as guests:
            passes = real_ksm.number("full_scans")
            wait_for(lambda: real_ksm.number("full_scans") >= passes + PASSES, 60, "passes")
            unique_bytes = GUESTS * MIX.unique_bytes
            assert sum(huge_bytes(guest.pid) for guest in guests) <= unique_bytes + 0.2 * ALL_BYTES
            assert [guest.wrong_pages() for guest in guests] == [0] * GUESTS


def is_merged(ksm: RealKsm, seed: ZeroSeed) -> bool:
    """Whether it is, after some passes; begins anew when it is not, for ksmd came to other processes first."""
    passes = ksm.number("full_scans")
    seed.consider(snapshot(guests=(), knobs=Knobs(run=Run.STOP)), wanted=True)
    wait_for(lambda: ksm.number("full_scans") >= passes + 4, 60, "passes with it")
    if Path("/proc/self/ksm_merging_pages").read_text() != "0\n":
        return True
    seed.close()
    passes = ksm.number("full_scans")
    wait_for(lambda: ksm.number("full_scans") >= passes + 2, 60, "passes without it")
    return False


def test_the_daemon_has_it_beside_guests(real_ksm: RealKsm, start: Start) -> None:
    daemon = start(TICKS)
    with workloads([MIX] * GUESTS, huge_pages=True):
        wait_for(lambda: is_mergeable(daemon.pid), 60, "pages of zeros")


@pytest.mark.parametrize(
    "sections",
    [{"daemon": {"mode": "observe"}}, {"kernel": {"max_page_sharing": 128}}],
    ids=["only watches", "has a structural knob to put back"],
)
def test_it_has_none_where_it(real_ksm: RealKsm, start: Start, sections: Sections) -> None:
    daemon = start(merged(TICKS, sections))
    daemon.wait_status(lambda status: status["totals"]["ticks"] > 3, "some ticks")
    assert not is_mergeable(daemon.pid)
