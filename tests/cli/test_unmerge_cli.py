"""`ksmtuned-py unmerge` works on the real kernel: for one guest, for all, and when it is cut short."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ksmtuned_py.cli.workload import Mix, Workload, workloads
from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES
from ksmtuned_py.units import KIB, MIB
from tests.support.daemon import KSMTUNED, verb
from tests.support.ksmlock import RealKsm
from tests.support.process import Program, children, wait_for

pytestmark = pytest.mark.kernel

PROCESSES, EQUAL_BYTES = 4, 128 * MIB


@pytest.fixture
def guests(real_ksm: RealKsm) -> Iterator[list[Workload]]:
    """Processes that have merged all they can, with ksmd stopped."""
    with workloads([Mix(equal_bytes=EQUAL_BYTES)] * PROCESSES) as guests:
        merge_all(real_ksm)
        real_ksm.write("run", 0)
        yield guests
        assert [guest.wrong_pages() for guest in guests] == [0] * PROCESSES


def merge_all(ksm: RealKsm) -> None:
    for name, value in {"smart_scan": 0, "pages_to_scan": 50_000, "sleep_millisecs": 2, "run": 1}.items():
        ksm.write(name, value)
    ksm.wait_saved((PROCESSES - 1) * EQUAL_BYTES // OWN_PAGE_BYTES, 60.0)


def own_bytes(guest: Workload) -> int:
    """The bytes of a process's largest mapping, which can merge, with its part of what it shares (PSS)."""
    lines = [line.split() for line in Path(f"/proc/{guest.pid}/smaps").read_text().splitlines()]
    sizes, parts = ([int(words[1]) * KIB for words in lines if words[0] == name] for name in ("Size:", "Pss:"))
    return max(zip(sizes, parts, strict=True))[1]


def all_bytes(guests: list[Workload]) -> int:
    return sum(map(own_bytes, guests))


def unmerge_all(runtime: Path) -> None:
    done = verb("unmerge", "--all", "--runtime-dir", runtime)
    assert done.returncode == 0, done.stderr


def test_one_guest_without_a_monitor_gets_its_pages_from_outside(real_ksm: RealKsm, guests: list[Workload]) -> None:
    first, *others = guests
    done = verb("unmerge", str(first.pid))
    assert (done.returncode, done.stdout) == (0, "")
    assert f"{first.name}: 128 MiB were shared with others, and are its own now" in done.stderr
    assert "merges it again" not in done.stderr  # ksmd is stopped
    assert own_bytes(first) >= EQUAL_BYTES * 95 // 100
    assert all_bytes(others) < EQUAL_BYTES * 13 // 10  # the others share it as before
    assert real_ksm.number("run") == 0


def test_where_ksmd_runs_it_is_told_that_it_merges_again(real_ksm: RealKsm, guests: list[Workload]) -> None:
    real_ksm.write("pages_to_scan", 1)
    real_ksm.write("run", 1)
    done = verb("unmerge", str(guests[0].pid))
    assert done.returncode == 0, done.stderr
    assert "ksmd merges it again at its next passes, unless it is stopped" in done.stderr
    assert real_ksm.number("run") == 1


def test_all_is_given_back_guest_by_guest(real_ksm: RealKsm, guests: list[Workload], tmp_path: Path) -> None:
    unmerge_all(tmp_path / "runtime")
    assert (real_ksm.number("run"), real_ksm.saved_pages()) == (0, 0)
    assert all_bytes(guests) >= PROCESSES * EQUAL_BYTES * 99 // 100


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_its_end_in_the_middle_leaves_what_was_given_back_and_ksmd_stopped(
    real_ksm: RealKsm, guests: list[Workload], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    runtime, before, processes = tmp_path / "runtime", all_bytes(guests), children()
    with Program([*KSMTUNED, "unmerge", "--all", "--runtime-dir", str(runtime)], tmp_path) as unmerge:
        wait_for(lambda: all_bytes(guests) > before + EQUAL_BYTES // 10, 20.0, "begin", every_seconds=0.005)
        assert unmerge.end(number) == code
        assert ("still merged; ksmd is stopped (run=0)" in unmerge.output()) == (number == signal.SIGINT)
    wait_for(lambda: children() == processes, 5.0, "end of its helper")
    assert real_ksm.number("run") == 0
    now = all_bytes(guests)
    assert before < now < PROCESSES * EQUAL_BYTES
    assert [guest.wrong_pages() for guest in guests] == [0] * PROCESSES
    unmerge_all(runtime)
    assert (real_ksm.number("run"), real_ksm.saved_pages()) == (0, 0)
