"""Ranges that remapping has cut are made huge pages again, the cheapest first, and a guest never notices."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.guests.mappings import Mapping
from ksmtuned_py.scanner.remap.share.whole import cut_ranges
from ksmtuned_py.units import MIB
from tests.scan.conftest import scanning, turn, wait_true
from tests.scan.writers import Writer, runs_freely, stores
from tests.support.khugepaged import khugepaged_at_rest
from tests.support.smaps import huge_bytes

RANGE = 2 * MIB
GUEST_MIB = 32
REMAP = Scan(reclaim="remap", remap_guests=("*",), remap_least_mib=8, split_huge_below_percent=100, stop_window_ms=50)
"""Huge pages are split however much memory is available. A stop on a machine with other work may take long."""
ALL = 1 << 60
"""More memory than there is."""


def in_huge_pages(equal_of_64: int, name: str = "writer") -> Writer:
    """A guest that got huge pages, and has so many of 64 pages in common with others."""
    return Writer(name, GUEST_MIB, settings={"WRITER_IN_HUGE_PAGES": "1", "WRITER_EQUAL_OF_64": str(equal_of_64)})


def mapping(start_pages: int, end_pages: int, *, merged: bool = False, permissions: str = "rw-p") -> Mapping:
    base = 1 << 32
    name = "/memfd:ksmtuned-py-pages-x (deleted)" if merged else ""
    start, end = base + start_pages * 4096, base + end_pages * 4096
    return Mapping(start, end, permissions, 0, 7 if merged else 0, name)


def test_a_cut_range_is_private_throughout_and_in_pieces() -> None:
    whole, gap, other = [mapping(0, 1024)], [mapping(1024, 1100), mapping(1200, 1536)], [mapping(1536, 2048)]
    cut = [mapping(2048, 2060), mapping(2060, 2070, merged=True), mapping(2070, 2560)]
    odd = [mapping(2560, 2600), mapping(2600, 3072, permissions="r--p")]
    found = cut_ranges([*whole, *gap, *other, *cut, *odd], RANGE)
    assert [(one.address, one.merged_pages) for one in found] == [((1 << 32) + 2048 * 4096, 10)]
    assert found[0].mappings == tuple(cut)


def test_a_piece_counts_only_as_far_as_it_lies_in_the_range() -> None:
    found = cut_ranges([mapping(0, 500), mapping(500, 600, merged=True), mapping(600, 1024)], RANGE)
    assert [one.merged_pages for one in found] == [12, 88]


def stays_true(look: Callable[[], bool], seconds: float) -> None:
    """Looks again and again for so long."""
    end_seconds = time.monotonic() + seconds
    while time.monotonic() < end_seconds:
        assert look()
        time.sleep(0.1)


@pytest.mark.parametrize("equal_of_64", [8, 48], ids=["sparse", "dense"])
def test_sparse_ranges_are_huge_again_and_dense_ones_stay_merged(root: None, no_ksm: Door, equal_of_64: int) -> None:
    with ExitStack() as stack:
        stack.enter_context(khugepaged_at_rest())
        guests = [stack.enter_context(in_huge_pages(equal_of_64, f"writer-{number}")) for number in range(2)]
        before = [huge_bytes(one.pid) for one in guests]
        assert min(before) >= 0.9 * GUEST_MIB * MIB
        backend = stack.enter_context(scanning(no_ksm, REMAP, guests))
        wait_true(lambda: max(huge_bytes(one.pid) for one in guests) < 0.1 * GUEST_MIB * MIB, "split huge pages")
        wait_true(lambda: backend.counters().pages_sharing > 500, "shared pages")
        turn(backend, "run", 0)
        assert backend.huge_back(ALL).given == 0
        merged = backend.counters().pages_sharing
        if equal_of_64 == 48:
            stays_true(lambda: backend.huge_back(0).given == 0, 2.0)
            assert backend.counters().pages_sharing > 0.9 * merged
        else:

            def are_huge() -> bool:
                assert backend.huge_back(0).paid_bytes <= backend.huge_back(0).given * RANGE / 2
                return all(huge_bytes(one.pid) >= 0.8 * size for one, size in zip(guests, before, strict=True))

            wait_true(are_huge, "huge pages")
            told = backend.huge_back(None)
            assert told.given >= 0.8 * 2 * GUEST_MIB * MIB / RANGE
            os.kill(backend.worker_pid, signal.SIGKILL)
            wait_true(lambda: "has died 1 time" in str(backend.problems) and backend.worker_pid != 0, "another worker")
            assert backend.huge_back(None).given == told.given
        assert [one.check()["wrong"] for one in guests] == [0, 0]
        assert all(runs_freely(one) for one in guests)
        turn(backend, "run", 2)
        wait_true(lambda: not any(stores(one) for one in guests), "pages given back")
        assert [one.check()["wrong"] for one in guests] == [0, 0]
