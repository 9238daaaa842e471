"""What a cut range has to be made huge again, and what that costs."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ksmtuned_py.backends.scanlink import for_scanner
from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.scanner import pagemap
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.remap.refuse.flags import eligible_now
from ksmtuned_py.scanner.remap.share import remapper as module
from ksmtuned_py.scanner.remap.share.remapper import Remapper
from ksmtuned_py.scanner.target import Target
from tests.scan.conftest import result
from tests.scan.cut import RANGE
from tests.scan.writers import Writer
from tests.support.khugepaged import khugepaged_at_rest
from tests.support.smaps import huge_bytes

SLOW = Scan(reclaim="remap", remap_least_mib=1, stop_window_ms=100)
ALL = 512


@contextmanager
def cut_guest(ranges: int, rest: str) -> Iterator[tuple[Writer, Process]]:
    with ExitStack() as stack:
        stack.enter_context(khugepaged_at_rest())
        one = stack.enter_context(Writer("cut", command=[sys.executable, "-m", "tests.scan.cut", str(ranges), rest]))
        yield one, stack.enter_context(Process(Target(pid=one.pid, start_ticks=0, remap=True), Door()))


def paid(process: Process, most: int, remapper: Remapper | None = None) -> list[int]:
    """Has all ranges made whole that cost no more; returns what each did."""
    costs = list[int]()
    by = remapper or Remapper(Door(), for_scanner(SLOW))
    assert result(by.make_whole(process, most, lambda: True, costs.append)) is None
    return costs


@pytest.mark.parametrize("rest", ["none", "half"])
def test_where_pages_are_missing_it_stays_cut(root: None, rest: str) -> None:
    with cut_guest(1, rest) as (one, process):
        assert paid(process, ALL) == []
        assert huge_bytes(one.pid) == 0


def test_pages_of_zeros_that_take_no_memory_cost_some(root: None) -> None:
    with cut_guest(1, "zeros") as (one, process):
        assert paid(process, ALL // 2) == []
        assert huge_bytes(one.pid) == 0
        assert paid(process, ALL) == [ALL - 1]
        assert huge_bytes(one.pid) == RANGE


def test_flags_are_read_again_in_each_turn(root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = list[int]()

    def noted(door: Door, process: Process, least_bytes: int) -> object:
        reads.append(least_bytes)
        return eligible_now(door, process, least_bytes)

    monkeypatch.setattr(module, "eligible_now", noted)
    with cut_guest(3, "all") as (one, process):
        remapper = Remapper(Door(), for_scanner(SLOW))
        remapper.turn_seconds = 0.0
        assert paid(process, ALL, remapper) == [0, 0, 0]
        assert huge_bytes(one.pid) == 3 * RANGE
    assert len(reads) == 3


def test_where_the_kernel_tells_of_no_huge_page_none_is_looked_for(root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with cut_guest(1, "all") as (_, process):
        assert Remapper(Door(), for_scanner(SLOW)).cut(process) == [0]
        monkeypatch.setattr(pagemap, "_PAGEMAP_SCAN", 0)
        assert Remapper(Door(), for_scanner(SLOW)).cut(process) == []
        assert paid(process, ALL) == []


def test_nor_in_a_guest_that_wants_none(root: None) -> None:
    with cut_guest(1, "all") as (one, process):
        one.ask("no more")
        assert Remapper(Door(), for_scanner(SLOW)).cut(process) == []
        assert paid(process, ALL) == []
