"""The model's huge pages: split by one merged page, made again by khugepaged, and what both do to memory and speed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtuned_py.ksmdmodel.guestmemory import PageGroup, equal, unique, zero
from ksmtuned_py.ksmdmodel.hugeranges import HUGE_PAGES, HugeRanges, Spread
from ksmtuned_py.ksmdmodel.khugepaged import RANGES
from ksmtuned_py.ksmdmodel.modelhost import ModelHost, Paging
from ksmtuned_py.units import KIB
from tests.support.model import ONE_BATCH, group, saved, scan, tell

COUNT = 40
"""Huge pages of a guest."""
THIN = [equal("os", 2 * COUNT), zero(3 * COUNT), unique((HUGE_PAGES - 5) * COUNT)]
"""When mixed, each huge page has two equal pages and three zero ones."""


def host_with(*guests: list[PageGroup], pages: Paging) -> ModelHost:
    host = ModelHost()
    for number, groups in enumerate(guests):
        host.add_guest(str(number), groups, pages=pages)
    tell(host, run=1, pages_to_scan=ONE_BATCH, sleep_millisecs=1000)
    return host


def huge(host: ModelHost, name: str = "0") -> HugeRanges:
    found = host.huge_pages(name)
    assert found
    return found


def test_one_merged_page_splits_its_huge_page_and_frees_the_zero_pages_in_it() -> None:
    host = host_with(THIN, THIN, pages="mixed")
    scan(host, 3)
    assert (huge(host).whole, host.vmstat().thp_split_page) == (0, 2 * COUNT)
    assert host.freed_pages() + saved(host) == pytest.approx(2 * COUNT + 2 * 3 * COUNT, abs=4)
    assert host.freed_pages() > 4 * COUNT, "most are in no counter of KSM"
    assert huge(host).speed < 1


def test_where_kinds_are_in_rows_only_those_that_merge_are_split() -> None:
    host = host_with([equal("os", 2 * HUGE_PAGES), unique(8 * HUGE_PAGES)], [equal("os", HUGE_PAGES)], pages="rows")
    scan(host, 3)
    assert (huge(host).whole, huge(host, "1").whole) == (9, 0), "the second row of the first guest is nobody else's"


def test_a_row_of_zero_pages_merges_one_in_each_huge_page() -> None:
    host = host_with([zero(4 * HUGE_PAGES)], pages="rows")
    scan(host, 4)
    assert huge(host).whole == 0
    assert host.freed_pages() == pytest.approx(4 * (HUGE_PAGES - 1), abs=1)


def test_what_has_no_partner_stays_whole() -> None:
    host = host_with([unique(HUGE_PAGES * COUNT)], [equal("lone", HUGE_PAGES)], pages="mixed")
    scan(host, 6)
    assert (huge(host).whole, huge(host).speed, host.vmstat().thp_split_page) == (COUNT, 1.0, 0)


def test_small_pages_have_none() -> None:
    host = host_with(THIN, pages="small")
    scan(host, 3)
    assert host.huge_pages("0") is None
    assert (host.memory().anon_huge_bytes, host.vmstat().thp_split_page, host.guests()[0].huge_bytes) == (0, None, None)


def test_khugepaged_makes_all_whole_again_at_its_pace_once_merging_is_given_up() -> None:
    host = host_with(THIN, THIN, pages="mixed")
    before = host.memory()
    assert before.anon_huge_bytes == 2 * COUNT * HUGE_PAGES * 4 * KIB
    scan(host, 3)
    tell(host, run=2)
    assert (huge(host).whole, host.freed_pages() > 0) == (0, True), "what was freed by splits stays so"
    host.advance(10)
    assert huge(host).whole == RANGES
    host.advance(10 * 2 * COUNT / RANGES)
    assert host.vmstat().thp_collapse_alloc == 2 * COUNT
    assert (host.memory(), host.freed_pages()) == (before, 0)


def test_khugepaged_and_ksmd_undo_each_other_for_ever() -> None:
    host = host_with(THIN, THIN, pages="mixed")
    scan(host, 3)
    splits = host.vmstat().thp_split_page or 0
    host.advance(60)
    assert (host.vmstat().thp_split_page or 0) >= splits + 5 * RANGES
    assert huge(host).whole <= RANGES
    assert not host.vmstat().cow_ksm, "nobody wrote anything"


def test_khugepaged_leaves_alone_where_much_is_merged() -> None:
    dense = [equal("os", HUGE_PAGES * 4)]
    host = host_with(dense, dense, pages="rows")
    scan(host, 3)
    tell(host, run=0)
    host.advance(100)
    assert (huge(host).whole, host.vmstat().thp_collapse_alloc, saved(host)) == (0, 0, 4 * HUGE_PAGES)


def test_splits_of_guests_that_ended_still_count() -> None:
    host = host_with(THIN, THIN, pages="mixed")
    scan(host, 3)
    host.remove_guest("0")
    assert host.vmstat().thp_split_page == 2 * COUNT
    assert host.freed_pages() <= 3 * COUNT


@settings(deadline=None, max_examples=50)
@given(st.lists(group, min_size=1, max_size=4), st.integers(0, 30_000), st.integers(0, 30_000))
def test_time_passes_alike_in_steps_of_any_size(memory: list[PageGroup], first: int, second: int) -> None:
    one, two = (host_with(memory, memory, pages="mixed") for _ in range(2))
    one.advance((first + second) / 1000)
    two.advance(first / 1000)
    two.advance(second / 1000)
    assert (one.counters(), one.memory(), one.vmstat(), one.guests()) == (
        two.counters(),
        two.memory(),
        two.vmstat(),
        two.guests(),
    )


@given(st.integers(0, 9), st.integers(1, 30), st.integers(1, 5000))
def test_each_page_is_in_the_huge_page_that_says_so(begin: int, count: int, pages: int) -> None:
    spread = Spread(begin, begin + count, pages)
    for number in range(begin, begin + count):
        inside = range(spread.first(number), spread.first(number + 1))
        assert {spread.huge(page) for page in inside} <= {number}
    assert (spread.first(begin), spread.first(begin + count)) == (0, pages)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.lists(group, min_size=1, max_size=4), st.sampled_from(["rows", "mixed"])), min_size=1),
    st.lists(st.sampled_from(["scan", "wait", "end", "unmerge"]), max_size=8),
)
def test_no_page_is_lost(guests: list[tuple[list[PageGroup], Paging]], acts: list[str]) -> None:
    host = ModelHost()
    empty = host.memory().available_bytes
    for number, (groups, pages) in enumerate(guests):
        host.add_guest(str(number), groups, pages=pages)
    names = [str(number) for number in range(len(guests))]
    tell(host, run=1, pages_to_scan=ONE_BATCH, sleep_millisecs=1000)
    for act in acts:
        if act == "end" and len(names) > 1:
            host.remove_guest(names.pop())
        elif act == "unmerge":
            tell(host, run=2)
            tell(host, run=1)
        host.advance(2 if act == "scan" else 25)
        for guest in host.guests():
            assert 0 <= huge(host, guest.name).whole <= huge(host, guest.name).count
            assert guest.rss_bytes >= 0
        assert host.memory().available_bytes <= empty
    for name in names:
        host.remove_guest(name)
    tell(host, run=2)
    host.advance(5)
    assert host.memory().available_bytes == empty
