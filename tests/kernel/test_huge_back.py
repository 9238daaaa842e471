"""Huge pages that ksmd has split are given back to real memory by the verb, and contents stay."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ksmtuned_py.units import KIB, MIB
from tests.kernel.conftest import Start
from tests.support.daemon import QUIET, merged, toml
from tests.support.hugeguest import mergeable_pages
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
Guest = subprocess.Popen[str]


@contextmanager
def huge_guests(each: int) -> Iterator[list[Guest]]:
    """Two guests in huge pages. Of their equal runs so many in a row have the same content."""
    words = [sys.executable, "-m", "tests.support.hugeguest", str(GUEST_MIB), str(each)]
    with ExitStack() as stack:
        guests = [
            stack.enter_context(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(2)
        ]
        for guest in guests:
            assert guest.stdout is not None
            assert guest.stdout.readline() == "ready\n"
        yield guests


def contents(guest: Guest) -> str:
    """The hash of a guest's memory."""
    assert guest.stdin is not None
    assert guest.stdout is not None
    print("hash", file=guest.stdin, flush=True)
    return guest.stdout.readline()


def huge_bytes(guest: Guest) -> int:
    """How much of a guest's memory is in huge pages, by the kernel."""
    lines = Path(f"/proc/{guest.pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith("AnonHugePages"))


def merge(ksm: RealKsm) -> None:
    """Have ksmd split and merge what it can, and rest."""
    for name, value in FAST.items():
        ksm.write(name, value)
    ksm.wait_saved(mergeable_pages(GUEST_MIB) // 2, 60)
    passes = ksm.number("full_scans")
    wait_for(lambda: ksm.number("full_scans") >= passes + 4, 60, "four more passes")
    ksm.write("run", 0)


def huge(tmp_path: Path, guest: Guest, *options: str) -> Any:
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
    with huge_guests(each) as guests:
        whole, before = [huge_bytes(guest) for guest in guests], [contents(guest) for guest in guests]
        merge(real_ksm)
        assert max(map(huge_bytes, guests)) < 0.1 * min(whole)
        for guest, size_bytes, content in zip(guests, whole, before, strict=True):
            seen = huge(tmp_path, guest, "--dry-run")
            assert seen["planned_ranges"] >= 0.95 * size_bytes / seen["range_bytes"]
            assert huge_bytes(guest) < 0.1 * size_bytes
            told = huge(tmp_path, guest)
            assert told["given_ranges"] >= 0.95 * seen["planned_ranges"]
            assert huge_bytes(guest) >= 0.95 * size_bytes
            assert told["paid_bytes"] <= 0.3 * GUEST_MIB * MIB
            assert contents(guest) == content


def test_it_refuses_while_ksmd_scans(real_ksm: RealKsm, tmp_path: Path) -> None:
    with huge_guests(1) as guests:
        merge(real_ksm)
        real_ksm.write("run", 1)
        with pytest.raises(AssertionError, match="ksmd scans"):
            huge(tmp_path, guests[0])
        assert huge(tmp_path, guests[0], "--dry-run")["planned_ranges"] > 0


def test_the_daemon_gives_them_back_while_memory_is_plenty(real_ksm: RealKsm, start: Start) -> None:
    with huge_guests(1) as guests:
        whole, before = [huge_bytes(guest) for guest in guests], [contents(guest) for guest in guests]
        merge(real_ksm)
        daemon = start(merged(QUIET, {"adaptive": {"huge_pages_back": True}}, NEED))
        wait_for(
            lambda: all(huge_bytes(guest) >= 0.95 * size for guest, size in zip(guests, whole, strict=True)),
            60,
            "huge pages",
            every_seconds=0.5,
        )
        told = daemon.wait_status(lambda status: status["totals"]["huge_back"]["given"] > 0, "what was given back")
        assert told["decision"]["rule"] == "plenty"
        assert real_ksm.number("run") == 0
        assert [contents(guest) for guest in guests] == before
