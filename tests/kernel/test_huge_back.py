"""Huge pages that ksmd has split are given back to real memory by the verb, and contents stay."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ksmtuned_py.units import MIB
from tests.kernel.conftest import Start
from tests.support.daemon import QUIET, merged, toml
from tests.support.hugeguest import HugeGuest, guests_in_huge_pages, mergeable_pages
from tests.support.khugepaged import khugepaged_at_rest
from tests.support.ksmlock import RealKsm
from tests.support.process import wait_for

pytestmark = pytest.mark.kernel

GUEST_MIB = 128
FAST = {"sleep_millisecs": 2, "pages_to_scan": 20_000, "smart_scan": 0, "run": 1}
NEED = {
    "adaptive.need": {
        "wary_enter_percent": 3,
        "wary_leave_percent": 3,
        "short_enter_percent": 2,
        "short_leave_percent": 2,
        "critical_enter_percent": 1,
        "critical_leave_percent": 1,
    }
}
"""Keeps little memory, whatever else runs on this machine."""


@pytest.fixture(autouse=True)
def at_rest(real_ksm: RealKsm) -> Iterator[None]:
    """What gives huge pages back here is ours alone."""
    with khugepaged_at_rest():
        yield


def merge(ksm: RealKsm) -> None:
    """Have ksmd split and merge what it can, and rest."""
    for name, value in FAST.items():
        ksm.write(name, value)
    ksm.wait_saved(mergeable_pages(GUEST_MIB) // 2, 60)
    passes = ksm.number("full_scans")
    wait_for(lambda: ksm.number("full_scans") >= passes + 4, 60, "four more passes")
    ksm.write("run", 0)


def huge(tmp_path: Path, guest: HugeGuest, *options: str) -> Any:
    """What the verb says of a guest."""
    config = tmp_path / "config.toml"
    config.write_text(toml(NEED))
    words = [sys.executable, "-m", "ksmtuned_py", "huge", str(guest.pid), "--json", "--config", str(config), *options]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout)["guests"]
    return found


@pytest.mark.parametrize("each", [1, 8], ids=["no page twice in a range", "pages twice in a range"])
def test_sparse_ranges_are_huge_again_and_contents_stay(real_ksm: RealKsm, tmp_path: Path, each: int) -> None:
    with guests_in_huge_pages(2, GUEST_MIB, each) as guests:
        whole, before = [guest.huge_bytes() for guest in guests], [guest.contents() for guest in guests]
        merge(real_ksm)
        assert max(guest.huge_bytes() for guest in guests) < 0.1 * min(whole)
        for guest, size_bytes, content in zip(guests, whole, before, strict=True):
            seen = huge(tmp_path, guest, "--dry-run")
            assert seen["planned_ranges"] >= 0.95 * size_bytes / seen["range_bytes"]
            assert guest.huge_bytes() < 0.1 * size_bytes
            told = huge(tmp_path, guest)
            assert told["given_ranges"] >= 0.95 * seen["planned_ranges"]
            assert guest.huge_bytes() >= 0.95 * size_bytes
            assert told["paid_bytes"] <= 0.3 * GUEST_MIB * MIB
            assert guest.contents() == content


def test_it_refuses_while_ksmd_scans(real_ksm: RealKsm, tmp_path: Path) -> None:
    with guests_in_huge_pages(2, GUEST_MIB) as guests:
        merge(real_ksm)
        real_ksm.write("run", 1)
        with pytest.raises(AssertionError, match="ksmd scans"):
            huge(tmp_path, guests[0])
        assert huge(tmp_path, guests[0], "--dry-run")["planned_ranges"] > 0


def test_the_daemon_gives_them_back_while_memory_is_plenty(real_ksm: RealKsm, start: Start) -> None:
    with guests_in_huge_pages(2, GUEST_MIB) as guests:
        whole, before = [guest.huge_bytes() for guest in guests], [guest.contents() for guest in guests]
        merge(real_ksm)
        daemon = start(merged(QUIET, {"adaptive": {"huge_pages_back": True}}, NEED))
        wait_for(
            lambda: all(guest.huge_bytes() >= 0.95 * size for guest, size in zip(guests, whole, strict=True)),
            60,
            "huge pages",
            every_seconds=0.5,
        )
        told = daemon.wait_status(lambda status: status["totals"]["huge_back"]["given"] > 0, "what was given back")
        assert told["decision"]["rule"] == "plenty"
        assert real_ksm.number("run") == 0
        assert [guest.contents() for guest in guests] == before
