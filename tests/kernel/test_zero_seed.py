"""Huge pages of zeros are given back in a few passes, where ksmd by itself gives back one in each."""

from contextlib import ExitStack, closing

import pytest

from ksmtuned_py.backends.zeroseed import ZeroSeed
from ksmtuned_py.cli.workload import Mix, workloads
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


@pytest.mark.parametrize("wanted", [True, False], ids=["with the seed", "without"])
def test_a_few_passes_give_them_all_back(real_ksm: RealKsm, wanted: bool) -> None:
    with khugepaged_at_rest(), closing(ZeroSeed()) as seed, ExitStack() as stack:
        if wanted:
            seed.consider(snapshot(guests=()), wanted=True)
        guests = stack.enter_context(workloads([MIX] * GUESTS, huge_pages=True))
        begun, passes = [huge_bytes(guest.pid) for guest in guests], real_ksm.number("full_scans")
        for name, value in FAST.items():
            real_ksm.write(name, value)
        wait_for(lambda: real_ksm.number("full_scans") >= passes + PASSES, 60, "passes")
        back = sum(begun) - sum(huge_bytes(guest.pid) for guest in guests)
        equal_bytes = GUESTS * MIX.equal_bytes
        assert back >= 0.8 * ALL_BYTES if wanted else back < 0.7 * ALL_BYTES + equal_bytes
        assert [guest.wrong_pages() for guest in guests] == [0] * GUESTS


def test_the_daemon_has_it_before_guests_come(real_ksm: RealKsm, start: Start) -> None:
    with khugepaged_at_rest():
        daemon = start(TICKS)
        wait_for(lambda: is_mergeable(daemon.pid), 10, "pages of zeros")
        with workloads([MIX] * GUESTS, huge_pages=True) as guests:
            unique_bytes = GUESTS * MIX.unique_bytes
            wait_for(
                lambda: sum(huge_bytes(guest.pid) for guest in guests) <= unique_bytes + 0.2 * ALL_BYTES,
                60,
                "huge pages of zeros given back",
            )


@pytest.mark.parametrize(
    "sections",
    [{"daemon": {"mode": "observe"}}, {"kernel": {"max_page_sharing": 128}}],
    ids=["only watches", "has a structural knob to put back"],
)
def test_it_has_none_where_it(real_ksm: RealKsm, start: Start, sections: Sections) -> None:
    daemon = start(merged(TICKS, sections))
    daemon.wait_status(lambda status: status["totals"]["ticks"] > 3, "some ticks")
    assert not is_mergeable(daemon.pid)


def test_without_guests_ksmd_comes_to_rest_and_nothing_is_tracked(real_ksm: RealKsm, start: Start) -> None:
    daemon = start(TICKS)
    with workloads([MIX]):
        wait_for(lambda: is_mergeable(daemon.pid) and real_ksm.number("pages_sharing") > 0, 30, "merged pages")
    wait_for(lambda: real_ksm.number("run") == 0, 30, "end of scanning")
    assert [real_ksm.number(name) for name in ("pages_shared", "pages_sharing", "pages_unshared")] == [0, 0, 0]
