"""KubeVirt's arithmetic gives the figures that were worked out by hand from its source."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.config import Config
from ksmtuned_py.config import Policy as PolicySection
from ksmtuned_py.config.peers import Kubevirt
from ksmtuned_py.model import Knobs, Run, Snapshot
from ksmtuned_py.policy import decide
from ksmtuned_py.policy.peers.kubevirt import adjust
from ksmtuned_py.policy.peers.periodic import Rate
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import GIB, KIB
from tests.support.snapshots import snapshot

TOTAL_KIB = 16 * GIB // KIB


def step(pages: int, *, available_kib: int, running: bool = True, total_kib: int = TOTAL_KIB, **settings: Any) -> Rate:
    return adjust(
        pages, running=running, total_kib=total_kib, available_kib=available_kib, settings=Kubevirt(**settings)
    )


def test_it_starts_at_100_and_boosts_to_1250() -> None:
    pages = [step(64, available_kib=0, running=False).pages_to_scan]
    for _ in range(5):
        pages.append(step(pages[-1], available_kib=0).pages_to_scan)
    assert pages == [100, 400, 700, 1000, 1250, 1250]


def test_it_decays_and_stops_below_64() -> None:
    calm = TOTAL_KIB // 2
    assert [step(pages, available_kib=calm).run for pages in (1250, 114, 113)] == [1, 1, 0]
    assert step(114, available_kib=calm).pages_to_scan == 64
    assert step(1250, available_kib=calm, running=False).run == 0


@pytest.mark.parametrize(("used_gib", "sleep_ms"), [(1, 1600), (12, 133), (16, 100), (160, 10), (400, 10)])
def test_sleep_goes_by_what_is_in_use(used_gib: int, sleep_ms: int) -> None:
    total = 512 * GIB // KIB
    rate = step(100, total_kib=total, available_kib=total - used_gib * GIB // KIB)
    assert rate.sleep_millisecs == sleep_ms


def test_a_host_without_any_use_does_not_divide_by_zero() -> None:
    assert step(100, available_kib=TOTAL_KIB).sleep_millisecs == 100 * TOTAL_KIB


def test_the_threshold_is_compared_in_32_bit_floats() -> None:
    # In 32 bits 0.2 is above 1/5, and 33554432 * 0.2 is rounded to 6710886.5, so one KiB decides.
    assert step(500, total_kib=2**25, available_kib=6_710_886).pages_to_scan == 800
    assert step(500, total_kib=2**25, available_kib=6_710_887).pages_to_scan == 450
    # Above 2**24 KiB neighbours are the same number, so 2**30 * 0.2 is 214748368, and so is what is available.
    assert step(500, total_kib=2**30, available_kib=214_748_370).pages_to_scan == 800
    assert step(500, total_kib=2**30, available_kib=214_748_377).pages_to_scan == 450


@given(st.integers(1, 2**42), st.floats(0, 1), st.integers(0, 1250), st.booleans())
def test_what_it_writes_stays_in_its_bounds_on_any_host(total: int, share: float, pages: int, running: bool) -> None:
    rate = step(pages, total_kib=total, available_kib=int(total * share), running=running)
    assert rate.sleep_millisecs >= 10
    assert not rate.run or 64 <= rate.pages_to_scan <= 1250


def at(seconds: float, knobs: Knobs, available_bytes: int) -> Snapshot:
    return snapshot(at=seconds, knobs=knobs, available_bytes=available_bytes)


def test_the_policy_adjusts_at_once_and_then_every_three_minutes() -> None:
    config = Config(policy=PolicySection(name="kubevirt"))
    trend = Trend.begin(config)
    off = Knobs(run=Run.STOP, pages_to_scan=900, sleep_millisecs=20, advisor_mode="none")
    first = at(0, off, GIB)
    trend = trend.after(first, config)
    knobs = decide(first, trend, config).knobs
    assert (knobs.run, knobs.pages_to_scan, knobs.sleep_millisecs) == (1, 100, 106)
    early = at(179, knobs, GIB)
    trend = trend.after(early, config)
    assert decide(early, trend, config).knobs == knobs
    later = at(180, knobs, GIB)
    trend = trend.after(later, config)
    assert decide(later, trend, config).knobs.pages_to_scan == 400
    calm = at(360, knobs, 10 * GIB)
    trend = trend.after(calm, config)
    assert decide(calm, trend, config).knobs == Knobs(run=Run.STOP)
