"""Time in the model of ksmd is that of the kernel: batches, sleeps, CPU, and steps of any size."""

import sys
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtuned_py.ksmdmodel.advisor import ModelAdvisor
from ksmtuned_py.ksmdmodel.guestmemory import PageGroup, equal, unique, zero
from ksmtuned_py.ksmdmodel.modelhost import ModelHost
from ksmtuned_py.ksmdmodel.settings import Settings
from ksmtuned_py.model import Write, WriteStatus
from tests.support.model import (
    ONE_BATCH,
    PERIOD_SECONDS,
    guests,
    knobs,
    milliseconds,
    running,
    tell,
)

# Time.


@pytest.mark.parametrize(
    ("sleep_millisecs", "period_ms"),
    [(1, 8), (4, 8), (5, 12), (20, 24), (100, 104), (250, 256), (256, 288), (300, 320), (1000, 1024)],
)
def test_sleeps_end_on_the_ticks_of_the_real_kernel(sleep_millisecs: int, period_ms: int) -> None:
    """The periods were measured on Linux 6.18 with HZ=250 and batches of one page."""
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
        two.counters(), two.memory(), two.guests(), two.vmstat()  # reading changes nothing
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
    """The work is counted in calls of Python functions, which a slow machine does not change."""

    def work(times: int) -> int:
        kinds = equal("os", 50 * times), zero(15 * times), unique(25 * times), unique(10 * times, rewrites_per_second=1)
        host = running(*[list(kinds)] * 20, pages_to_scan=1000 * times, sleep_millisecs=1)
        return calls(lambda: twelve_passes(host, times / 100))

    def twelve_passes(host: ModelHost, step_seconds: float) -> None:
        while host.counters().full_scans < 12:
            host.advance(step_seconds)

    assert work(1000) < 3 * work(1)


def calls(act: Callable[[], None]) -> int:
    """The number of Python functions that an act calls."""
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
    """With an hour of CPU time and 10 million pages, 500 pages a batch become 70 (the kernel's arithmetic)."""
    advisor = ModelAdvisor()
    settings_ = Settings(pages_to_scan=500, advisor_mode="scan-time")
    assert advisor.pages_to_scan(411 * 10**9, 3610 * 10**9, settings_) == 70


def test_the_advisor_steers_towards_its_target() -> None:
    host = running(*[[unique(200_000)]] * 5, smart_scan=0, advisor_mode="scan-time", advisor_target_scan_time=60)
    host.advance(3600)
    before = host.counters().full_scans
    host.advance(3600)
    assert host.counters().full_scans - before == pytest.approx(60, rel=0.2)
