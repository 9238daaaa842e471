"""The arithmetic of MOM and VDSM gives the figures that were worked out by hand from their rules."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.config import Config
from ksmtuned_py.config import Policy as PolicySection
from ksmtuned_py.config.peers import Mom
from ksmtuned_py.model import Knobs, Memory, Mode, Run, Snapshot, Wake
from ksmtuned_py.policy import decide
from ksmtuned_py.policy.peers.mom import adjust
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import GIB, KIB
from tests.support.snapshots import guest, snapshot

VDSM = Mom()
MOM = Mom(sleep_min_msec=0)
TOTAL_KIB = 16 * GIB // KIB


@pytest.mark.parametrize(
    ("read_back", "free_kib", "pages"),
    [
        (100, 0, 400),
        (1000, 0, 1250),
        (1250, TOTAL_KIB, 1200),
        (100, TOTAL_KIB, 64),
        (100, TOTAL_KIB * 0.2, 64),  # at the threshold it neither stops nor boosts
        (5000, TOTAL_KIB, 1250),
    ],
)
def test_it_steps_from_what_it_reads_back(read_back: int, free_kib: float, pages: int) -> None:
    rate = adjust(read_back, total_kib=TOTAL_KIB, free_kib=free_kib, committed_kib=TOTAL_KIB, settings=VDSM)
    assert (rate.run, rate.pages_to_scan) == (1, pages)


def test_it_stops_with_room_on_both_counts() -> None:
    rate = adjust(900, total_kib=TOTAL_KIB, free_kib=TOTAL_KIB * 0.21, committed_kib=0, settings=VDSM)
    assert (rate.run, rate.pages_to_scan) == (0, 900)
    full = adjust(900, total_kib=TOTAL_KIB, free_kib=TOTAL_KIB, committed_kib=TOTAL_KIB * 4 // 5 + 1, settings=VDSM)
    assert full.run == 1


@pytest.mark.parametrize(
    ("gib", "mom_ms", "vdsm_ms"), [(8, 20, 20), (12, 13, 13), (16, 10, 10), (64, 2, 10), (160, 1, 10), (161, 0, 10)]
)
def test_sleep_is_cut_off_and_only_vdsm_has_a_floor(gib: int, mom_ms: int, vdsm_ms: int) -> None:
    sleeps = [
        adjust(0, total_kib=gib * GIB // KIB, free_kib=0, committed_kib=0, settings=settings).sleep_millisecs
        for settings in (MOM, VDSM)
    ]
    assert sleeps == [mom_ms, vdsm_ms]


@given(st.integers(1, 2**42), st.floats(0, 2**42), st.integers(0, 2**42), st.integers(0, 2**32))
def test_pages_stay_in_their_bounds_on_any_host(total: int, free: float, committed: int, pages: int) -> None:
    rate = adjust(pages, total_kib=total, free_kib=free, committed_kib=committed, settings=VDSM)
    assert rate.sleep_millisecs >= 10
    assert rate.pages_to_scan == pages if not rate.run else 64 <= rate.pages_to_scan <= 1250


def at(seconds: float, free_gib: float, pages: int) -> Snapshot:
    memory = Memory(total_bytes=16 * GIB, available_bytes=0, free_bytes=round(free_gib * GIB))
    knobs = Knobs(run=Run.MERGE, pages_to_scan=pages, sleep_millisecs=20, advisor_mode="none")
    machine = replace(guest(rss_bytes=0), virtual_bytes=16 * GIB)
    return snapshot(at=seconds, memory=memory, knobs=knobs, guests=(machine,))


def test_the_policy_takes_the_mean_of_its_samples() -> None:
    config = Config(policy=PolicySection(name="mom"))
    trend = Trend.begin(config)
    first = at(0, free_gib=12, pages=500)
    trend = trend.after(first, config)
    decision = decide(first, trend, config)
    assert (decision.mode, decision.knobs, decision.next_tick_seconds) == (Mode.OFF, Knobs(), 5)
    for seconds, free_gib in ((3, 0), (5, 0)):  # the first of these is between two samples
        trend = trend.after(at(seconds, free_gib, pages=500), config)
    now = at(10, free_gib=0, pages=500)
    trend = trend.after(now, config)
    knobs = decide(now, trend, config).knobs
    assert (knobs.run, knobs.pages_to_scan, knobs.sleep_millisecs) == (1, 450, 10), "the mean is 4 GiB, above 3.2"
    now = replace(at(11, free_gib=0, pages=450), woken_by=frozenset({Wake.ASKED}))
    trend = trend.after(now, config)
    assert decide(now, trend, config).knobs.pages_to_scan == 400
    for seconds in range(15, 70, 5):
        now = at(seconds, free_gib=0, pages=450)
        trend = trend.after(now, config)
    assert decide(now, trend, config).knobs.pages_to_scan == 750, "after ten samples the first is forgotten"
