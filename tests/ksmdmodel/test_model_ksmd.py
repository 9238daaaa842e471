"""The model of ksmd keeps its laws: what it counts, when a page merges, and how copies break."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.realksmd import RealKsmd
from ksmtuned_py.cli.workload import PAGE_BYTES, Mix, workloads
from ksmtuned_py.ksmdmodel.guestmemory import PageGroup, equal, unique, zero
from ksmtuned_py.ksmdmodel.modelhost import ModelHost
from ksmtuned_py.model import COUNTER_NAMES
from ksmtuned_py.units import GIB, KIB, MIB
from tests.support.ksmlock import RealKsm
from tests.support.model import (
    ONE_BATCH,
    PERIOD_SECONDS,
    guests,
    knobs,
    milliseconds,
    running,
    saved,
    scan,
    tell,
)

# What is counted.


@settings(deadline=None, max_examples=60)
@given(guests, knobs, st.lists(milliseconds, max_size=12))
def test_every_page_is_counted_once(memory: list[list[PageGroup]], how: dict[str, int], steps: list[int]) -> None:
    host = running(*memory, **how)
    every_page = sum(group.pages for groups in memory for group in groups)
    still = not any(group.rewrites_per_second for groups in memory for group in groups)
    for step in steps:
        host.advance(step / 1000)
        counters, accounts = host.counters(), [guest.ksm for guest in host.guests() if guest.ksm]
        assert min(getattr(counters, name) for name in COUNTER_NAMES if name != "general_profit") >= 0
        assert counters.candidate_pages == sum(account.rmap_items for account in accounts) <= every_page
        assert counters.pages_shared + counters.pages_sharing == sum(account.merging_pages for account in accounts)
        assert counters.ksm_zero_pages == sum(account.zero_pages for account in accounts)
        assert saved(host) <= host.mergeable_pages() or not still
        assert host.memory().available_bytes <= host.memory().total_bytes


@pytest.mark.parametrize("use_zero_pages", [0, 1])
def test_all_is_saved_that_can_be(use_zero_pages: int) -> None:
    memory = [equal("os", 900), zero(700), unique(300), equal("self", 500, distinct=60)]
    host = running(memory, memory, memory, pages_to_scan=ONE_BATCH, use_zero_pages=use_zero_pages)
    scan(host, 3)
    counters = host.counters()
    assert saved(host) == host.mergeable_pages()
    assert counters.pages_shared == 900 + 60 + (0 if use_zero_pages else 9)  # 2100 zero pages, 256 in a frame
    assert counters.ksm_zero_pages == (2100 if use_zero_pages else 0)
    assert counters.pages_unshared == 900
    assert counters.candidate_pages + (counters.ksm_zero_pages or 0) == 3 * 2400  # nothing is forgotten
    assert counters.general_profit == saved(host) * 4 * KIB - counters.candidate_pages * 64


def test_a_page_on_the_zero_page_is_volatile_until_ksmd_comes_by_again() -> None:
    host = running([zero(100)], pages_to_scan=ONE_BATCH, use_zero_pages=1)
    scan(host, 2)
    assert (host.counters().ksm_zero_pages, host.counters().pages_volatile) == (100, 100)
    scan(host)
    assert (host.counters().ksm_zero_pages, host.counters().pages_volatile) == (100, 0)


def test_memory_grows_by_what_is_saved_and_shrinks_by_the_bookkeeping() -> None:
    host = ModelHost(total_bytes=GIB, used_bytes=0)
    for name in "ab":
        host.add_guest(name, [equal("os", 1000), unique(500)])
    assert host.memory().available_bytes == GIB - 3000 * 4096
    tell(host, run=1, pages_to_scan=ONE_BATCH)
    scan(host, 2)
    assert host.memory().available_bytes == GIB - 3000 * 4096 + 1000 * 4096 - 3000 * 64


# When a page merges.


def test_a_page_merges_in_its_second_scan_and_not_before() -> None:
    """Two guests have ten equal pages each. A page is saved when ksmd sees its second copy the second time."""
    host = running([equal("os", 10)], [equal("os", 10)], pages_to_scan=1)
    # A pass over 20 pages takes 21 batches, because the last one finds the end of the list.
    for batch in range(70):
        in_second_pass = batch - 21
        assert saved(host) == min(10, max(0, in_second_pass - 10)), f"batch {batch}"
        host.advance(PERIOD_SECONDS)


def test_the_first_partner_waits_in_the_unstable_tree_and_the_second_merges_both() -> None:
    host = running([equal("os", 10)], [equal("os", 10)], pages_to_scan=10)
    host.advance(PERIOD_SECONDS * 3.5)  # a batch each for the guests, one for the end of the pass, and the next one
    seen = host.counters()
    assert (seen.pages_unshared, seen.pages_shared, seen.pages_volatile) == (10, 0, 10)
    host.advance(PERIOD_SECONDS)
    seen = host.counters()
    assert (seen.pages_unshared, seen.pages_shared, seen.pages_sharing) == (0, 10, 10)


def test_a_guest_that_arrives_is_scanned_last() -> None:
    host = running([unique(100)], [unique(100)], pages_to_scan=50)
    host.advance(PERIOD_SECONDS / 2)
    host.add_guest("late", [unique(50)])
    for batch in range(4):
        late = host.guests()[-1].ksm
        assert late is not None
        assert late.rmap_items == 0, f"batch {batch}: the pass has still to finish the others"
        host.advance(PERIOD_SECONDS)
    scan(host)
    assert sum(guest.ksm.rmap_items for guest in host.guests() if guest.ksm) == 250


def test_changing_pages_never_merge_and_stay_volatile() -> None:
    host = running([unique(1000, rewrites_per_second=50)], pages_to_scan=ONE_BATCH, smart_scan=0)
    for _ in range(20):
        scan(host)
        assert host.counters().pages_volatile == 1000


# smart_scan.


def test_a_page_that_finds_nobody_is_skipped_once_then_two_four_and_eight_times() -> None:
    host = running([unique(7)], pages_to_scan=ONE_BATCH)
    seen: list[str] = []
    for _ in range(40):
        before = host.counters().pages_skipped or 0
        scan(host)
        counters = host.counters()
        skipped = (counters.pages_skipped or 0) - before
        assert skipped in (0, 7)
        assert (counters.pages_volatile, counters.pages_unshared) == ((7, 0) if skipped or not seen else (0, 7))
        seen.append("-" if skipped else "x")
    assert "".join(seen) == "xxxx-x--x----x--------x--------x--------"


def late_twin(passes_before: int, passes_after: int, *, without_smart_scan: int) -> int:
    """The pages saved between a guest and its twin, which arrives after so many passes."""
    host = running([equal("os", 500)], pages_to_scan=ONE_BATCH)
    scan(host, passes_before)
    host.add_guest("twin", [equal("os", 500)])
    tell(host, smart_scan=0)
    scan(host, without_smart_scan)
    tell(host, smart_scan=1)
    scan(host, passes_after - without_smart_scan)
    return saved(host)


def test_a_late_twin_stays_apart_under_smart_scan() -> None:
    assert late_twin(22, 40, without_smart_scan=0) == 0  # a real kernel saved 1 %
    met = [late_twin(ages, 40, without_smart_scan=0) for ages in range(18, 27)]
    assert sum(met) == 500 * 6, "over all phases of the eight skips two thirds of the pages meet"


def test_a_late_twin_merges_at_once_without_smart_scan() -> None:
    assert all(late_twin(ages, 3, without_smart_scan=3) == 500 for ages in range(18, 27))


@pytest.mark.kernel
@pytest.mark.parametrize("passes_before", [20, 22, 23])
def test_the_real_ksmd_merges_a_late_twin_in_the_very_same_pass(real_ksm: RealKsm, passes_before: int) -> None:
    pages, ksmd = 8 * MIB // PAGE_BYTES, RealKsmd(real_ksm)
    mix = Mix(equal_bytes=8 * MIB, seed=os.getpid())  # so that no other process of this machine has the content
    model = running([equal("seed", pages)], pages_to_scan=ONE_BATCH)
    scan(model, passes_before)
    model.add_guest("twin", [equal("seed", pages)])
    with workloads([mix], prefix="first"):
        ksmd.lead(smart_scan=1)
        for _ in range(passes_before - 1):
            ksmd.next_pass()
        with workloads([mix], prefix="twin") as (twin,):
            for _ in range(12):
                ksmd.next_pass()
                scan(model)
                assert merging_pages(twin.pid) == (pages if saved(model) else 0)


def merging_pages(pid: int) -> int:
    """A process's merged pages, by the kernel's account, because other processes may merge, too."""
    lines = Path(f"/proc/{pid}/ksm_stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("ksm_merging_pages"))


# Copies that break.


def test_rewriting_merged_pages_breaks_copies_which_ksmd_notices_later() -> None:
    host = running([equal("os", 1000)], [equal("os", 1000, rewrites_per_second=0.1)], pages_to_scan=ONE_BATCH)
    scan(host, 3)
    tell(host, run=0)
    before, cow_before = host.memory().available_bytes, host.vmstat().cow_ksm or 0
    host.advance(5)
    broken = (host.vmstat().cow_ksm or 0) - cow_before
    assert 490 <= broken <= 510, "a tenth of 1000 pages each second"
    assert saved(host) == 1000, "the counters lag"
    assert before - host.memory().available_bytes == broken * 4096
    host.advance(3600)
    assert (host.vmstat().cow_ksm or 0) - cow_before <= 1000, "a copy breaks once"


def test_a_page_on_the_zero_page_that_is_written_to_is_a_page_again() -> None:
    host = running([zero(100, rewrites_per_second=0.1)], pages_to_scan=ONE_BATCH, use_zero_pages=1)
    scan(host, 2)
    tell(host, run=0)
    saved_before = saved(host)
    host.advance(5)
    assert saved_before - saved(host) == pytest.approx(50, abs=2)
    assert host.vmstat().cow_ksm == 0, "the kernel does not count these"


def test_a_guest_that_ends_frees_its_memory_at_once_and_its_account_later() -> None:
    host = running([equal("os", 1000), zero(10)], [equal("os", 1000), zero(10)], pages_to_scan=ONE_BATCH)
    scan(host, 2)
    tell(host, run=0)
    host.remove_guest("1")
    gone = host.memory()
    assert (
        gone.total_bytes - gone.available_bytes == GIB + 1010 * 4096 - 9 * 4096 + host.counters().candidate_pages * 64
    )
    assert host.counters().pages_sharing == 1000 + 19
    assert [guest.name for guest in host.guests()] == ["0"]
    tell(host, run=1)
    scan(host)
    assert host.counters().pages_shared + host.counters().pages_sharing == 1000 + 10
    assert saved(host) == 9
    with pytest.raises(KeyError):
        host.remove_guest("1")
