"""khugepaged leaves merged pages alone while memory is needed, and is put back as it was, however the daemon ends."""

import os
import signal
from collections.abc import Iterator

import pytest

from ksmtuned_py.units import MIB
from tests.kernel.conftest import Start
from tests.support.daemon import MEMORY_FIRST, QUIET, merged, verb
from tests.support.hugeguest import HugeGuest, guests_in_huge_pages, mergeable_pages
from tests.support.khugepaged import KHUGEPAGED, khugepaged_with
from tests.support.ksmlock import RealKsm
from tests.support.need import need
from tests.support.process import wait_for

pytestmark = pytest.mark.kernel

GUEST_MIB = 64
SPLITTER = KHUGEPAGED.parent / "shrink_underused"
TICKS = merged(QUIET, MEMORY_FIRST, {"daemon": {"tick_seconds": 0.2, "idle_tick_seconds": 0.2}})
HELD = merged(TICKS, {"kernel": {"khugepaged": "need"}})
BUSY = {"scan_sleep_millisecs": 10, "pages_to_scan": 65536, "max_ptes_shared": 256, "max_ptes_none": 511}
"""khugepaged as the kernel has it, but for its pace."""
FOUND, KEPT = {"max_ptes_shared": 256, "max_ptes_none": 511}, {"max_ptes_shared": 0, "max_ptes_none": 0}


@pytest.fixture(autouse=True)
def busy_khugepaged(real_ksm: RealKsm) -> Iterator[None]:
    """khugepaged takes milliseconds for what takes it minutes. One run of such tests at a time."""
    need(os.access(KHUGEPAGED / "max_ptes_shared", os.W_OK), "root, and transparent huge pages")
    busy = {KHUGEPAGED / name: value for name, value in BUSY.items()}
    splitter = {SPLITTER: 0} if SPLITTER.exists() else {}  # or the daemon leaves max_ptes_none alone
    with khugepaged_with(busy | splitter):
        yield


def numbers(*names: str) -> dict[str, int]:
    return {name: int((KHUGEPAGED / name).read_text()) for name in names}


def put(settings: dict[str, int]) -> None:
    for name, value in settings.items():
        (KHUGEPAGED / name).write_text(str(value))


def settings() -> dict[str, int]:
    return numbers(*FOUND)


def in_huge_pages(guests: list[HugeGuest]) -> int:
    return sum(guest.huge_bytes() for guest in guests)


def after_three_rounds(guests: list[HugeGuest]) -> int:
    """How much is in huge pages once khugepaged has been everywhere."""
    begun = numbers("full_scans")["full_scans"]
    wait_for(lambda: numbers("full_scans")["full_scans"] >= begun + 3, 60, "rounds of khugepaged")
    return in_huge_pages(guests)


def test_what_is_merged_stays_so_until_the_daemon_ends(real_ksm: RealKsm, start: Start) -> None:
    with guests_in_huge_pages(2, GUEST_MIB) as guests:
        daemon = start(HELD)
        wait_for(lambda: real_ksm.saved_pages() >= 0.9 * mergeable_pages(GUEST_MIB), 60, "merged pages")
        wait_for(lambda: settings() == KEPT, 10, "settings of ours")  # by the next tick
        wait_for(lambda: in_huge_pages(guests) < 0.2 * 2 * GUEST_MIB * MIB, 30, "split huge pages")
        whole = in_huge_pages(guests)  # what ksmd has not come to
        assert after_three_rounds(guests) <= whole
        assert daemon.end() == 0
        assert settings() == FOUND
        wait_for(lambda: in_huge_pages(guests) > whole, 60, "khugepaged at work")  # so it would have been, too


def test_unasked_its_settings_are_left_alone(real_ksm: RealKsm, start: Start) -> None:
    with guests_in_huge_pages(2, GUEST_MIB):
        daemon = start(TICKS)
        wait_for(real_ksm.saved_pages, 30, "merged pages")  # not all: khugepaged undoes them
        assert settings() == FOUND
        put(KEPT)  # somebody else does, and whoever never touched them does not put them back
        assert daemon.end() == 0
        assert settings() == KEPT


def test_what_a_killed_daemon_left_is_put_back(real_ksm: RealKsm, start: Start) -> None:
    with guests_in_huge_pages(2, GUEST_MIB):
        daemon = start(HELD)
        wait_for(lambda: settings() == KEPT, 10, "settings of ours")
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        assert settings() == KEPT
        done = verb("restore", "--runtime-dir", daemon.runtime)
        assert (done.returncode, done.stderr) == (0, "")
        assert settings() == FOUND
