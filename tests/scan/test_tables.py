"""What is remembered of pages, what each pass reads of them, and how equal ones are counted."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ksmtuned_py.backends.scanlink import for_scanner
from ksmtuned_py.cli.workload import Mix, workloads
from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.scanner.count import count, first_of_each
from ksmtuned_py.scanner.pages import LEAST, UNREAD, ZERO, contains, repeated
from ksmtuned_py.scanner.scanner import WORK_BYTES, Scanner
from ksmtuned_py.scanner.table import BLOCK_PAGES, PAGE_TABLE_BYTES, SLAB_BYTES, Slab, Table
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.units import MIB
from tests.scan.changing import changer
from tests.scan.conftest import worked


def passed(slab: Slab, number: int, *, changed: NDArray[np.intp] | None = None, smart: bool = True) -> int:
    """Makes one pass over a slab, some of whose pages have changed; returns how many were read."""
    due = slab.due(number, smart=smart)
    prints = np.where(slab.prints[due] == 0, 10, slab.prints[due])
    prints[np.isin(due, [] if changed is None else changed)] += np.uint64(1)
    slab.saw(due, prints)
    return len(due)


def test_a_page_is_steady_when_two_passes_saw_the_same() -> None:
    slab = Slab(0)
    slab.relist(np.array([1, 5, 9], np.uint16))
    slab.saw(np.arange(3), np.array([10, 20, 30], np.uint64))
    assert not slab.steady.any()
    slab.relist(np.array([1, 5, 7, 9], np.uint16))
    slab.saw(np.arange(4), np.array([10, 21, 5, 30], np.uint64))
    assert slab.steady.tolist() == [True, False, False, True]
    slab.saw(np.arange(1), np.array([UNREAD], np.uint64))
    slab.saw(np.arange(1), np.array([UNREAD], np.uint64))
    assert slab.steady.tolist() == [False, False, False, True]
    assert slab.bytes <= PAGE_TABLE_BYTES * 4


def test_what_does_not_change_is_left_out_ever_longer_each_block_in_its_turn() -> None:
    slab, read = Slab(0), []
    slab.relist(np.arange(BLOCK_PAGES * 9).astype(np.uint16))
    for number in range(60):
        due = slab.due(number, smart=True)
        read.append(due)
        slab.saw(due, np.full(len(due), 10, np.uint64))
    assert [len(due) for due in read[:2]] == [BLOCK_PAGES * 9] * 2
    assert {len(due) for due in read[-20:]} == {BLOCK_PAGES}
    assert np.array_equal(np.unique(np.concatenate(read[-9:])), np.arange(BLOCK_PAGES * 9))
    assert len(slab.due(60, smart=False)) == BLOCK_PAGES * 9


@pytest.mark.parametrize("changed", [0, 2, 64])
def test_a_guest_that_changes_a_few_pages_has_a_fifth_of_them_read_at_most(changed: int) -> None:
    slab, chance = Slab(0), np.random.default_rng(changed)
    slab.relist(np.arange(65536).astype(np.uint16))
    read = [passed(slab, number, changed=chance.choice(65536, changed, replace=False)) for number in range(60)]
    assert max(read[30:]) <= 65536 / 5
    assert np.count_nonzero(slab.steady) >= 65536 - 9 * changed


def test_what_is_known_of_a_page_stays_comparable_while_it_is_left_out() -> None:
    old, new = Slab(0), Slab(0)
    for number in range(30):
        old.relist(np.arange(512).astype(np.uint16))
        passed(old, number)
    for number in (30, 31):
        new.relist(np.arange(512).astype(np.uint16))
        passed(new, number)
    assert (old.prints[old.steady] == new.prints[new.steady]).all()
    assert len(old.prints[old.steady]) == 512


@given(st.lists(st.lists(st.integers(0, 40), max_size=50), max_size=5))
def test_repeated_prints_are_those_seen_twice(parts: list[list[int]]) -> None:
    everything = [number * 2**58 % 2**64 + 2 for part in parts for number in part]
    arrays = [np.array([number * 2**58 % 2**64 + 2 for number in part], np.uint64) for part in parts]
    found = repeated(arrays)
    assert found.tolist() == sorted({one for one in everything if everything.count(one) > 1})
    assert contains(found, np.array(everything, np.uint64)).tolist() == [
        one in set(found.tolist()) for one in everything
    ]


def known_guest(prints: NDArray[np.uint64], slabs: int) -> Table:
    """Returns a guest whose pages two passes have seen."""
    table = Table()
    for number, part in enumerate(np.split(prints, slabs)):
        slab = table.slab(number * SLAB_BYTES)
        slab.relist(np.arange(len(part)).astype(np.uint16))
        for _ in range(2):
            slab.saw(np.arange(len(part)), part)
    return table


MOST_WORK = 100_000
"""The most work of one step, in pages that could be read meanwhile: 0.2 s."""


def test_equal_pages_are_counted_in_small_steps_however_many_there_are() -> None:
    chance, slabs = np.random.default_rng(3), 48
    parts = [chance.integers(2, 2**64 - 1, slabs * 65536, dtype=np.uint64) for _ in range(2)]
    parts[0][:100_000] = 1  # zeros
    parts[1][: 1 << 20] = parts[0][1 << 20 : 2 << 20]
    parts[1][-5000:] = 7
    works, found = worked(count([known_guest(part, slabs) for part in parts], most_kept=3000))
    assert found.pages == [100_000 + (1 << 20), (1 << 20) + 5000]
    assert len(found.prints) == 3000
    assert (np.diff(found.prints.astype(np.float64)) > 0).all()
    assert max(works) < MOST_WORK
    assert len(works) > 2 * slabs


def test_a_content_that_fills_the_memory_does_not_make_a_step_longer() -> None:
    prints = np.full(48 * 65536, 7, np.uint64)
    works, found = worked(count([known_guest(prints, 48), known_guest(prints[:65536], 1)], most_kept=10))
    assert found.pages == [48 * 65536, 65536]
    assert found.prints.tolist() == [7]
    assert max(works) < 100


def test_a_guest_for_which_there_is_no_room_is_refused_and_the_others_are_scanned(root: None) -> None:
    mix = Mix(unique_bytes=16 * MIB)
    with workloads([mix, mix], mergeable=False) as loads:
        scanner = Scanner(Door(), for_scanner(Scan(reclaim="report")), memory_bytes=WORK_BYTES + 9000 * 11 * 4 // 3)
        scanner.watch([Target(pid=load.pid, start_ticks=0, name=load.name) for load in loads])
        steps = scanner.steps()
        for _ in range(3):
            passed_once(scanner, steps)
        first, second = scanner.watched.values()
        assert first.trouble is None
        assert first.table.pages >= 4096
        assert "worker_memory_mib is too small" in str(second.trouble)
        assert second.table.pages <= 9000 - first.table.pages
        scanner.watch([second.target])
        passed_once(scanner, steps)
        assert (second.trouble, second.table.pages >= 4096) == (None, True)


def test_a_guest_that_writes_to_a_few_pages_has_a_fifth_of_them_read_at_most(root: None) -> None:
    with changer(64) as load:
        scanner = Scanner(Door(), for_scanner(Scan(reclaim="report")))
        scanner.watch([Target(pid=load.pid, start_ticks=0)])
        steps = scanner.steps()
        for warm in (True, False):
            before = scanner.progress()
            for _ in range(18):
                load.change(16)  # of 16,384
                passed_once(scanner, steps)
            read, left_out = (
                (now or 0) - (then or 0)
                for now, then in (
                    (scanner.progress().pages_scanned, before.pages_scanned),
                    (scanner.progress().pages_skipped, before.pages_skipped),
                )
            )
            assert warm or read <= (read + left_out) / 5


def passed_once(scanner: Scanner, steps: Iterator[int]) -> None:
    """Makes a whole pass."""
    goal = scanner.progress().full_scans + 1
    while scanner.progress().full_scans < goal:
        next(steps)


def test_all_zeros_of_a_huge_page_are_near_each_other_but_for_those_that_are_out() -> None:
    slab = Slab(0)
    slab.relist(np.arange(100, 1600, dtype=np.uint16))
    contents = np.full(1500, LEAST, np.uint64)
    contents[slab.pages % 100 == 0] = ZERO
    slab.saw(np.arange(1500), contents)
    slab.paged_out = np.array([700], np.uint16)
    assert slab.zeros_near(np.array([600], np.uint16)).tolist() == [600, 800, 900, 1000]


def test_what_is_known_of_a_large_memfd_is_sorted_in_small_steps() -> None:
    chance = np.random.default_rng(4)
    found = chance.integers(0, 2**64 - 1, 3 << 20, dtype=np.uint64)
    found[::7], found[5:] = ZERO, found[:-5].copy()
    works, (once, places) = worked(first_of_each(found, np.arange(len(found)).astype(np.uint32)))
    expected, first = np.unique(found, return_index=True)
    assert np.array_equal(once, expected[expected >= LEAST])
    assert np.array_equal(places, first[expected >= LEAST])
    assert max(works) < MOST_WORK
    assert len(works) == 4
