"""The old script's arithmetic gives the figures that were worked out by hand from its source."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.config import Config
from ksmtuned_py.config import Policy as PolicySection
from ksmtuned_py.config.peers import Ksmtuned
from ksmtuned_py.model import Memory, Mode, Wake
from ksmtuned_py.policy import decide
from ksmtuned_py.policy.peers.shellscript import adjust
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import GIB, KIB
from tests.support.snapshots import guest, snapshot

SETTINGS = Ksmtuned()
GIB_KIB = GIB // KIB


def adjusted(times: int, *, total_kib: int = 16 * GIB_KIB, free_kib: int = GIB_KIB, npages: int = 0) -> list[int]:
    pages = []
    for _ in range(times):
        rate = adjust(npages, total_kib=total_kib, free_kib=free_kib, committed_kib=total_kib, settings=SETTINGS)
        npages = rate.pages_to_scan
        pages.append(npages)
    return pages


def test_under_pressure_it_boosts_in_five_steps() -> None:
    assert adjusted(6) == [300, 600, 900, 1200, 1250, 1250]


def test_without_pressure_it_decays_in_24_steps() -> None:
    pages = adjusted(25, free_kib=15 * GIB_KIB, npages=1250)
    assert pages[:2] == [1200, 1150]
    assert pages[22] == 100
    assert pages[23] == pages[24] == 64


@pytest.mark.parametrize(("gib", "sleep_ms"), [(4, 40), (8, 20), (16, 10), (64, 10)])
def test_sleep_is_scaled_to_16_gib_and_at_least_10_ms(gib: int, sleep_ms: int) -> None:
    rate = adjust(0, total_kib=gib * GIB_KIB, free_kib=0, committed_kib=0, settings=SETTINGS)
    assert rate.sleep_millisecs == sleep_ms


def test_proxmox_sleeps_ten_times_as_long() -> None:
    settings = replace_settings(sleep_msec=100)
    rate = adjust(0, total_kib=8 * GIB_KIB, free_kib=0, committed_kib=0, settings=settings)
    assert rate.sleep_millisecs == 200


def test_the_constant_is_kib_and_so_never_matters() -> None:
    rate = adjust(0, total_kib=16 * GIB_KIB, free_kib=0, committed_kib=0, settings=SETTINGS)
    assert f"threshold {16 * GIB_KIB * 20 // 100} KiB" in rate.sentence
    tiny = adjust(0, total_kib=10_000, free_kib=0, committed_kib=0, settings=SETTINGS)
    assert "threshold 2048 KiB" in tiny.sentence


def test_it_stops_only_with_room_on_both_counts_and_keeps_npages() -> None:
    total = 16 * GIB_KIB
    stopped = adjust(900, total_kib=total, free_kib=total, committed_kib=GIB_KIB, settings=SETTINGS)
    assert (stopped.run, stopped.pages_to_scan) == (0, 900)
    committed = adjust(900, total_kib=total, free_kib=total, committed_kib=total, settings=SETTINGS)
    assert (committed.run, committed.pages_to_scan) == (1, 850)


@given(st.integers(1, 2**42), st.integers(0, 2**42), st.integers(0, 2**42), st.integers(0, 1250))
def test_npages_stays_in_its_bounds_on_any_host(total: int, free: int, committed: int, npages: int) -> None:
    rate = adjust(npages, total_kib=total, free_kib=free, committed_kib=committed, settings=SETTINGS)
    assert rate.sleep_millisecs >= 10
    assert rate.pages_to_scan == npages if not rate.run else 64 <= rate.pages_to_scan <= 1250


def test_the_policy_waits_an_interval_and_adjusts_at_once_when_asked() -> None:
    config = Config(policy=PolicySection(name="ksmtuned"))
    trend = Trend.begin(config)
    full = Memory(total_bytes=16 * GIB, available_bytes=0)

    first = snapshot(at=0, memory=full, guests=(guest(rss_bytes=16 * GIB),))
    trend = trend.after(first, config)
    decision = decide(first, trend, config)
    assert (decision.mode, decision.knobs.run) == (Mode.OFF, None)

    early = replace(first, clock=replace(first.clock, monotonic_seconds=59.0))
    assert decide(early, trend.after(early, config), config).knobs.pages_to_scan is None

    asked = replace(early, woken_by=frozenset({Wake.ASKED}))
    trend = trend.after(asked, config)
    assert decide(asked, trend, config).knobs.pages_to_scan == 300

    later = replace(first, clock=replace(first.clock, monotonic_seconds=119.0))
    trend = trend.after(later, config)
    assert decide(later, trend, config).knobs.pages_to_scan == 600


def replace_settings(**values: int) -> Ksmtuned:
    return SETTINGS.model_copy(update=values)
