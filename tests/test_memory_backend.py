"""The laws of the model of a host and its ksmd, and of the backend that drives it."""

import sys
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtuned_py.backends.memory import MemoryBackend
from ksmtuned_py.backends.model.advisor import Advisor
from ksmtuned_py.backends.model.guestmemory import PageGroup, equal, unique, zero
from ksmtuned_py.backends.model.modelhost import ModelHost
from ksmtuned_py.backends.model.settings import LINUX_6_1, Settings
from ksmtuned_py.host import Host
from ksmtuned_py.model import COUNTER_NAMES, KNOB_NAMES, Counters, KnobName, Knobs, KnobValue, Write, WriteStatus
from ksmtuned_py.units import GIB, KIB

ONE_BATCH = 1_000_000
"""pages_to_scan at which a batch is a whole pass here."""
PERIOD_SECONDS = 0.024
"""At the kernel's default sleep of 20 ms: five jiffies of 4 ms, and the timer's own."""


def refused(host: ModelHost, knob: KnobName, value: KnobValue) -> str:
    """Writes a knob; '' when it was taken, else how the kernel put it."""
    result = host.write(Write(knob=knob, old=0, new=value))
    assert (result.status is WriteStatus.OK) == (not result.detail)
    return result.detail


def tell(host: ModelHost, **knobs: KnobValue) -> None:
    """Writes knobs that have to be taken."""
    for name in KNOB_NAMES:
        if name in knobs:
            assert not refused(host, name, knobs[name])


def running(*guests: list[PageGroup], **knobs: KnobValue) -> ModelHost:
    """A host whose ksmd runs, with guests named 0, 1, ..."""
    host = ModelHost()
    for number, groups in enumerate(guests):
        host.add_guest(str(number), groups)
    tell(host, **{"run": 1, **knobs})
    return host


def scan(host: ModelHost, passes: int = 1) -> None:
    """Lets time pass until so many passes are done."""
    goal = host.counters().full_scans + passes
    while host.counters().full_scans < goal:
        host.advance(0.004)


def saved(host: ModelHost) -> int:
    return host.counters().saved_pages


group = st.one_of(
    st.builds(equal, st.sampled_from(["os", "app"]), st.integers(1, 90), rewrites_per_second=st.sampled_from([0, 2.5])),
    st.builds(zero, st.integers(1, 90)),
    st.builds(unique, st.integers(1, 90), rewrites_per_second=st.sampled_from([0, 0.3, 7])),
    st.builds(lambda pages, distinct: equal("self", pages, distinct=distinct), st.integers(1, 60), st.integers(1, 7)),
)
guests = st.lists(st.lists(group, min_size=1, max_size=4), min_size=1, max_size=4)
knobs = st.fixed_dictionaries(
    {
        "pages_to_scan": st.sampled_from([0, 1, 7, 100, 5000]),
        "sleep_millisecs": st.sampled_from([1, 4, 20, 300]),
        "smart_scan": st.integers(0, 1),
        "use_zero_pages": st.integers(0, 1),
    }
)
milliseconds = st.integers(0, 3000)


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
    """Two guests of ten equal pages, one page a batch: a page is saved when the second copy is seen the second time."""
    host = running([equal("os", 10)], [equal("os", 10)], pages_to_scan=1)
    # A pass over 20 pages takes 21 batches: the last finds the list at its end.
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
    """Pages saved between a guest and its twin that arrives when the first was scanned so often."""
    host = running([equal("os", 500)], pages_to_scan=ONE_BATCH)
    scan(host, passes_before)
    host.add_guest("twin", [equal("os", 500)])
    tell(host, smart_scan=0)
    scan(host, without_smart_scan)
    tell(host, smart_scan=1)
    scan(host, passes_after - without_smart_scan)
    return saved(host)


def test_a_late_twin_stays_apart_under_smart_scan() -> None:
    assert late_twin(22, 40, without_smart_scan=0) == 0  # seen on a real kernel: 1 %
    met = [late_twin(ages, 40, without_smart_scan=0) for ages in range(18, 27)]
    assert sum(met) == 500 * 6, "over all phases of the eight skips two thirds of the pages meet"


def test_a_late_twin_merges_at_once_without_smart_scan() -> None:
    assert all(late_twin(ages, 3, without_smart_scan=3) == 500 for ages in range(18, 27))


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


# Knobs.


def test_run_2_gives_every_page_back_and_counts_passes_from_0() -> None:
    host = running([equal("os", 100), zero(50)], [equal("os", 100)], pages_to_scan=ONE_BATCH, use_zero_pages=1)
    scan(host, 4)
    assert saved(host) == 150
    scanned = host.counters().pages_scanned
    tell(host, run=2)
    zeroes = dict.fromkeys(COUNTER_NAMES, 0)
    assert host.counters() == Counters(**{**zeroes, "pages_scanned": scanned or 0})
    assert host.vmstat().cow_ksm == 200, "unmerging is counted as breaking copies, other than of the zero page"
    host.advance(60)
    assert host.counters().candidate_pages == 0
    tell(host, run=1)
    scan(host, 2)
    assert saved(host) == 150


def test_run_2_without_room_fails_and_stops() -> None:
    host = ModelHost(total_bytes=2500 * 4096, used_bytes=0)
    tell(host, run=1, pages_to_scan=ONE_BATCH)
    host.add_guest("a", [equal("os", 1200)])
    host.add_guest("b", [equal("os", 1200)])
    scan(host, 2)
    host.add_guest("c", [unique(900)])
    assert refused(host, "run", 2).startswith("ENOMEM")
    assert (host.knobs().run, saved(host)) == (0, 1200)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("run", 3),
        ("run", -1),
        ("smart_scan", 2),
        ("use_zero_pages", 5),
        ("merge_across_nodes", 2),
        ("max_page_sharing", 1),
        ("pages_to_scan", 2**32),
        ("sleep_millisecs", -1),
        ("advisor_mode", "fast"),
        ("advisor_target_scan_time", 0),
    ],
)
def test_a_value_out_of_range_is_einval(knob: KnobName, value: KnobValue) -> None:
    host = ModelHost()
    before = host.knobs()
    assert refused(host, knob, value).startswith("EINVAL")
    assert host.knobs() == before


@pytest.mark.parametrize(("knob", "value"), [("merge_across_nodes", 0), ("max_page_sharing", 32)])
def test_what_shapes_the_trees_is_ebusy_while_anything_is_merged(knob: KnobName, value: int) -> None:
    host = running([equal("os", 10)], [equal("os", 10)], pages_to_scan=ONE_BATCH)
    scan(host, 2)
    assert refused(host, knob, value).startswith("EBUSY")
    assert not refused(host, knob, host.knobs().get(knob) or 0), "the present value always succeeds"
    tell(host, run=2)
    tell(host, **{knob: value})
    assert host.knobs().get(knob) == value


def test_pages_to_scan_belongs_to_the_advisor_while_it_is_on() -> None:
    host = ModelHost()
    tell(host, pages_to_scan=1234, advisor_mode="scan-time")
    assert host.knobs().pages_to_scan == 500, "advisor_min_pages_to_scan"
    assert refused(host, "pages_to_scan", 1000).startswith("EINVAL")
    tell(host, advisor_mode="none")
    assert host.knobs().pages_to_scan == 100


def test_an_older_kernel_has_fewer_files() -> None:
    host = ModelHost(features=LINUX_6_1)
    host.add_guest("a", [unique(100)])
    tell(host, run=1, pages_to_scan=ONE_BATCH)
    scan(host, 30)
    assert host.counters().pages_unshared == 100, "no smart_scan, nothing is skipped"
    assert refused(host, "smart_scan", 0).startswith("ENOENT")
    assert [name for name, _ in host.knobs().items()] == list(LINUX_6_1.knobs)
    counters = host.counters()
    assert (
        counters.pages_scanned is counters.pages_skipped is counters.ksm_zero_pages is counters.general_profit is None
    )


def test_the_kernels_defaults() -> None:
    assert ModelHost().knobs() == Knobs(
        run=0,
        pages_to_scan=100,
        sleep_millisecs=20,
        smart_scan=1,
        use_zero_pages=0,
        merge_across_nodes=1,
        max_page_sharing=256,
        stable_node_chains_prune_millisecs=2000,
        advisor_mode="none",
        advisor_max_cpu=70,
        advisor_min_pages_to_scan=500,
        advisor_max_pages_to_scan=30000,
        advisor_target_scan_time=200,
    )


# Time.


@pytest.mark.parametrize(
    ("sleep_millisecs", "period_ms"),
    [(1, 8), (4, 8), (5, 12), (20, 24), (100, 104), (250, 256), (256, 288), (300, 320), (1000, 1024)],
)
def test_sleeps_end_on_the_ticks_of_the_real_kernel(sleep_millisecs: int, period_ms: int) -> None:
    """Periods measured on Linux 6.18 with HZ=250, one page a batch."""
    host = running([unique(ONE_BATCH)], pages_to_scan=1, sleep_millisecs=sleep_millisecs)
    host.advance(10)
    assert host.counters().pages_scanned == pytest.approx(10_000 / period_ms, abs=2)


def test_a_change_of_the_sleep_wakes_ksmd_at_once() -> None:
    host = running([unique(1000)], pages_to_scan=10, sleep_millisecs=3_600_000)
    host.advance(60)
    assert host.counters().pages_scanned == 10
    tell(host, sleep_millisecs=3_600_000)
    host.advance(1)
    assert host.counters().pages_scanned == 10, "the same value is no change"
    tell(host, sleep_millisecs=20)
    host.advance(1)
    assert host.counters().pages_scanned == pytest.approx(10 + 10 / PERIOD_SECONDS, abs=20)


def test_cpu_time_is_a_share_of_the_time_that_passes() -> None:
    host = running([unique(ONE_BATCH)], pages_to_scan=ONE_BATCH, sleep_millisecs=1)
    host.advance(30)
    assert 27 < host.scanner_cpu_seconds() <= 30
    tell(host, pages_to_scan=100)
    host.advance(10)
    tell(host, run=0)
    used = host.scanner_cpu_seconds()
    host.advance(30)
    assert host.scanner_cpu_seconds() == used
    tell(host, run=1, pages_to_scan=0)
    host.advance(30)
    assert host.scanner_cpu_seconds() - used < 0.1, "waking up only"


def test_without_sleep_and_without_pages_ksmd_still_lets_time_pass() -> None:
    host = running([unique(10)], pages_to_scan=0, sleep_millisecs=0)
    host.advance(3600)
    assert host.scanner_cpu_seconds() == pytest.approx(3600, rel=1e-3)


def test_a_write_during_a_long_batch_waits_for_its_end() -> None:
    host = running([unique(ONE_BATCH)], pages_to_scan=ONE_BATCH)
    host.advance(0.1)
    assert host.write(Write(knob="run", old=1, new=0)).status is WriteStatus.PENDING
    assert host.knobs().run == 1
    host.advance(5)
    assert host.knobs().run == 0
    assert host.counters().pages_scanned == ONE_BATCH, "the batch was finished"


@settings(deadline=None, max_examples=80)
@given(guests, knobs, st.lists(st.tuples(milliseconds, milliseconds, knobs), min_size=1, max_size=4))
def test_time_passes_alike_in_one_step_and_in_many(
    memory: list[list[PageGroup]], how: dict[str, int], steps: list[tuple[int, int, dict[str, int]]]
) -> None:
    one, two = running(*memory, **how), running(*memory, **how)
    for number, (first, second, then) in enumerate(steps):
        one.advance((first + second) / 1000)
        two.advance(first / 1000)
        two.counters(), two.memory(), two.guests(), two.vmstat()  # looking changes nothing
        two.advance(second / 1000)
        assert everything(one) == everything(two)
        for host in (one, two):
            host.add_guest(f"late-{number}", memory[0])
            tell(host, **then)


@settings(deadline=None, max_examples=20)
@given(guests, knobs, milliseconds)
def test_the_same_story_always_ends_the_same(memory: list[list[PageGroup]], how: dict[str, int], wait: int) -> None:
    hosts = [running(*memory, **how) for _ in range(2)]
    for host in hosts:
        host.advance(wait / 1000)
    assert everything(hosts[0]) == everything(hosts[1])


def everything(host: ModelHost) -> tuple[object, ...]:
    """All that can be seen of a host."""
    seen = (host.now_seconds, host.knobs(), host.counters(), host.memory(), host.vmstat(), host.guests())
    return (*seen, host.scanner_cpu_seconds(), host.mergeable_pages())


def test_a_host_a_thousand_times_the_size_is_no_more_work() -> None:
    """Counted in calls of Python functions, which a slow machine does not change."""

    def work(times: int) -> int:
        kinds = equal("os", 50 * times), zero(15 * times), unique(25 * times), unique(10 * times, rewrites_per_second=1)
        host = running(*[list(kinds)] * 20, pages_to_scan=1000 * times, sleep_millisecs=1)
        return calls(lambda: twelve_passes(host, times / 100))

    def twelve_passes(host: ModelHost, step_seconds: float) -> None:
        while host.counters().full_scans < 12:
            host.advance(step_seconds)

    assert work(1000) < 3 * work(1)


def calls(act: Callable[[], None]) -> int:
    """How many Python functions it calls."""
    count = 0

    def seen(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        act()
    finally:
        sys.setprofile(before)
    return count


# The kernel's advisor.


def test_the_advisor_takes_ksmds_whole_life_for_its_first_pass() -> None:
    """An hour of CPU time behind it and 10 million pages: 500 pages a batch become 70 (the kernel's arithmetic)."""
    advisor = Advisor()
    settings_ = Settings(pages_to_scan=500, advisor_mode="scan-time")
    assert advisor.pages_to_scan(411 * 10**9, 3610 * 10**9, settings_) == 70


def test_the_advisor_steers_towards_its_target() -> None:
    host = running(*[[unique(200_000)]] * 5, smart_scan=0, advisor_mode="scan-time", advisor_target_scan_time=60)
    host.advance(3600)
    before = host.counters().full_scans
    host.advance(3600)
    assert host.counters().full_scans - before == pytest.approx(60, rel=0.2)


# The backend.


class Hands:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_the_backend_catches_up_with_its_clock() -> None:
    model, clock = ModelHost(), Hands()
    model.add_guest("a", [equal("os", 1000)])
    model.add_guest("b", [equal("os", 1000)])
    backend = MemoryBackend(model, clock)
    assert backend.write(Write(knob="run", old=0, new=1)).status is WriteStatus.OK
    assert backend.counters().pages_scanned == 0
    clock.seconds += 2
    assert backend.counters().pages_scanned == pytest.approx(2 / PERIOD_SECONDS * 100, rel=0.1)
    assert backend.scanner_cpu_seconds() == pytest.approx(model.scanner_cpu_seconds())
    clock.seconds -= 1
    assert backend.knobs().run == 1, "a clock that goes back stops the model, no more"
    clock.seconds += 10
    assert backend.counters().pages_sharing == 1000
    backend.close()


def test_a_host_stands_on_the_model_alone() -> None:
    model = ModelHost()
    model.add_guest("web", [equal("os", 1000)])
    model.add_guest("db", [equal("os", 1000)])
    backend = MemoryBackend(model, lambda: model.now_seconds)
    host = Host(backend, backend)
    host.apply((Write(knob="run", old=0, new=1), Write(knob="pages_to_scan", old=100, new=ONE_BATCH)))
    model.advance(1)
    snapshot = host.observe()
    assert (snapshot.backend, snapshot.counters.pages_sharing) == ("memory", 1000)
    assert [guest.name for guest in snapshot.guests] == ["web", "db"]
    assert snapshot.memory == model.memory()
    assert not snapshot.problems
