"""News begins boosts that are worth it, boosts end in time, and reasons remember what they brought."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.config import Config
from ksmtuned_py.model import Counters, Guest, GuestKsm, Mode, Snapshot
from ksmtuned_py.policy import decide as decided
from ksmtuned_py.policy.boost import NOTHING_SECONDS, Boost
from ksmtuned_py.policy.record import FRUITLESS_MAX_SECONDS, NewsKind, NewsRecord
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import GIB
from tests.support.snapshots import guest, snapshot

CONFIG = Config()
GIB_PAGES = GIB // 4096


def after(*snapshots: Snapshot) -> Trend:
    trend = Trend.begin(CONFIG)
    for each in snapshots:
        trend = trend.after(each, CONFIG)
    return trend


def look(at: float, full_scans: int, **fields: Any) -> Snapshot:
    """A snapshot of a ksmd that takes one CPU-second a second, and tracks what a test says, in GiB."""
    pages = {f"pages_{name}": round(fields.pop(name) * GIB_PAGES) for name in PLACES if name in fields}
    fields = {"cpu_seconds": at} | fields
    return snapshot(at=at, counters=Counters(full_scans=full_scans, **pages), **fields)


PLACES = ("shared", "sharing", "unshared", "volatile", "scanned", "skipped")
BOOSTS = st.builds(
    Boost,
    open=st.just(False),
    since_seconds=st.floats(0, 1000),
    price=st.floats(0, 300),
    gained_bytes=st.integers(0, 10 * GIB),
    cpu_seconds=st.floats(0, 1000),
)


@given(st.lists(BOOSTS, max_size=20))
def test_a_reason_for_nothing_waits_at_least_twice_as_long_each_time_and_an_hour_at_most(boosts: list[Boost]) -> None:
    record = NewsRecord()
    for boost in boosts:
        told = record.after(boost, 1000.0)
        if boost.was_fruitless:
            assert told.wait_seconds >= min(2 * record.wait_seconds, FRUITLESS_MAX_SECONDS)
            assert told.deaf_until_seconds <= 1000 + FRUITLESS_MAX_SECONDS
        else:
            assert (told.wait_seconds, told.deaf_until_seconds) == (0, 1000)
        assert (told.gained_bytes, told.cpu_seconds) == (boost.gained_bytes, boost.cpu_seconds)
        record = told


def test_growth_that_brought_nothing_is_not_heard_again_until_it_has_waited() -> None:
    trend = after(look(0, 0, unshared=1), look(10, 3, unshared=1))
    times = []
    for step in range(400):
        at, size = 20 + 10 * step, GIB * (8 if step % 2 else 1)
        trend = trend.after(look(at, 4 + 3 * step, unshared=1, guests=(guest(rss_bytes=size),)), CONFIG)
        if trend.news.seconds == at:
            times.append(at)
    waits = [later - sooner for sooner, later in pairwise(times)]
    assert NewsKind.GROWTH in trend.news.records
    assert len(times) < 14  # all of 200 before
    assert waits[-1] > 1000
    assert "guests' memory grew" in trend.news.sentence


def test_other_reasons_are_heard_meanwhile() -> None:
    trend = after(look(0, 0, unshared=1), look(100, 3, unshared=1))
    assert trend.news.record(NewsKind.ARRIVAL).deaf_until_seconds == 200
    late = (guest(), guest("late", pid=101, rss_bytes=400 * GIB))
    seen = trend.after(look(110, 3, unshared=1, guests=late), CONFIG)
    assert "grew by 400 GiB" in seen.news.sentence
    decision = decided(look(101, 3, unshared=1), trend.after(look(101, 3, unshared=1), CONFIG), CONFIG)
    waits = "news of arrival in 1 min 39 s: it is not heard now, for its last boost gained 0 B for 100 CPU-s"
    assert waits in decision.would_change


def test_guests_that_may_not_merge_are_no_news() -> None:
    out = replace(guest("out", pid=101), merge=False)
    trend = after(look(0, 0, unshared=1), look(10, 3, unshared=1, guests=(guest(), out)))
    number = trend.news.number
    trend = trend.after(look(1000, 3, unshared=1, guests=(guest(), replace(out, rss_bytes=52 * GIB))), CONFIG)
    assert trend.news.number == number == 1
    unwilling = tuple(replace(guest(str(n), pid=n), obstacles=("nosharepages",)) for n in range(1, 20))
    assert not after(look(0, 0, guests=unwilling)).boosting
    assert not after(look(0, 0, guests=(replace(guest(), ksm=GuestKsm(mergeable=False)),))).boosting


@pytest.mark.parametrize(("old_gib", "twin_gib"), [(1, 1), (1, 0.95), (20, 20), (20, 19.5)])
def test_a_twin_gets_thorough_passes_also_after_a_cruise_that_skipped_nearly_all(
    old_gib: float, twin_gib: float
) -> None:
    """A page that is scanned there stands for many that are passed over; and no twin is quite as large as the other."""
    old, twin = guest(rss_bytes=round(old_gib * GIB)), guest("twin", pid=101, rss_bytes=round(twin_gib * GIB))

    def seen(at: float, scans: int, scanned: float, skipped: int, cpu: float, *guests: Guest) -> Snapshot:
        pages = {"unshared": old_gib, "scanned": scanned * old_gib, "skipped": skipped * old_gib}
        host = {"total_bytes": 100 * GIB, "available_bytes": 50 * GIB, "guests": guests}
        return look(at, scans, cpu_seconds=cpu * old_gib, **pages, **host)

    boosted = (seen(0, 9, 0, 0, 0, old), seen(10, 12, 3, 0, 0.7, old))
    trend = after(*boosted, seen(400, 13, 3.01, 1, 1, old), seen(800, 14, 3.02, 2, 1.4, old))
    assert not trend.boosting
    assert trend.page_cost_seconds > 20e-6
    trend = trend.after(seen(801, 14, 3.02, 2, 1.4, old, twin), CONFIG)
    assert trend.boosting
    assert trend.news.boost.is_thorough


def test_a_boost_with_nothing_to_scan_ends() -> None:
    """The kernel does not say who asked for merging, and no guest did."""
    guests = tuple(replace(guest(str(n), pid=n, rss_bytes=4 * GIB), ksm=GuestKsm()) for n in range(1, 20))
    trend = after(look(0, 7, guests=guests))
    assert trend.boosting
    for at in range(1, 3600, 5):
        trend = trend.after(look(at, 7, guests=guests), CONFIG)
    assert not trend.boosting
    assert trend.news.number == 1
    started = after(look(0, 7, guests=guests, scanned=0))
    later = look(NOTHING_SECONDS, 7, guests=guests, scanned=0.1)
    assert started.after(later, CONFIG).boosting  # a backend that counts later


def test_a_pass_in_which_nothing_could_meet_does_not_count() -> None:
    """The end of a pass over ended guests' pages does not count, nor does a first pass. Then pages meet."""
    trend = after(look(0, 0), look(1, 1), look(2, 2, volatile=1))
    assert trend.boosting
    trend = trend.after(look(3, 3, shared=0.05, sharing=0.05, unshared=0.5, volatile=0.4), CONFIG)
    assert trend.boosting
    assert trend.passes.done < trend.news.boost.done_at_pass
    trend = trend.after(look(60, 4, shared=0.1, sharing=0.1, unshared=0.8), CONFIG)
    assert not trend.boosting


def test_a_boost_is_judged_by_what_is_left_to_gain() -> None:
    """The last pass gained little for its CPU, but a fifth of all memory came during it."""
    host = {"guests": (guest(rss_bytes=13 * GIB),)}
    as_it_was = {"sharing": 8, "unshared": 1.5, "volatile": 0.2, **host}
    begun = (look(0, 0, **as_it_was), look(10, 2, **as_it_was))
    trend = after(*begun, look(20, 3, sharing=8.1, unshared=1.5, volatile=2.5, **host))
    assert trend.boosting
    assert not trend.after(look(90, 4, sharing=9, unshared=3, **host), CONFIG).boosting
    had_their_chance = after(*begun, look(20, 3, sharing=8.1, unshared=4, **host))
    assert not had_their_chance.boosting


@pytest.mark.parametrize(
    ("came_gib", "left_gib", "passes", "goes_on"),
    [(1.0, 0.0, 1, True), (1.0, 0.1, 2, True), (1.0, 0.005, 2, False), (0.0625, 0.005, 2, True)],
)
def test_a_mute_pass_makes_no_boost_longer_when_the_second_whole_one_has_compared_everything(
    came_gib: float, left_gib: float, passes: int, goes_on: bool
) -> None:
    """News wants two whole passes. The first one under way is none, and a mute one makes it three.

    The first whole pass sees a guest for the first time. The next look may come when the second has begun with it: then
    it is unshared, and has met nobody. What is left uncompared may be all of a small guest, too.
    """
    before, late = {"sharing": 4, "unshared": 2, "volatile": 1.0}, guest("late", pid=2, rss_bytes=round(came_gib * GIB))
    trend = after(look(0, 10, **before), look(10, 14, **before), look(20, 14, **before, guests=(guest(), late)))
    trend = trend.after(look(25, 15, sharing=4, volatile=3, guests=(guest(), late)), CONFIG)
    assert trend.boosting
    assert trend.news.boost.mute_looks == 1
    compared = look(30, 15 + passes, sharing=4, unshared=3, volatile=left_gib, guests=(guest(), late))
    assert trend.after(compared, CONFIG).boosting is goes_on


def test_a_boost_keeps_the_price_at_which_it_was_wanted() -> None:
    """Merging itself ends the need, and must not stop half way because of that."""
    wary = {"available_bytes": 4 * GIB, "guests": (guest(rss_bytes=12 * GIB),)}
    trend = after(look(0, 0, unshared=3, **wary), look(20, 3, unshared=2, sharing=1, **wary))
    relieved = trend.after(
        look(30, 4, unshared=1.4, sharing=1.6, available_bytes=6 * GIB, guests=wary["guests"]), CONFIG
    )
    assert relieved.price == CONFIG.adaptive.balanced.price_cpu_seconds_per_gib.calm
    assert relieved.boosting  # 10 CPU-s for 0.6 GiB is a price below 30 and above 5


def test_without_the_scanners_cpu_time_a_little_gain_does_not_prolong_a_boost() -> None:
    def seen(at: float, scans: int, sharing: float) -> Snapshot:
        return look(at, scans, unshared=40, sharing=sharing, cpu_seconds=None, guests=(guest(rss_bytes=50 * GIB),))

    trend = after(seen(0, 0, 0), seen(100, 3, 0.001))
    assert not trend.boosting
    assert trend.pass_cpu_seconds == pytest.approx(40 * GIB_PAGES * trend.scanner.cost_seconds, rel=0.01)


def test_why_says_how_long_a_pass_will_really_take() -> None:
    many = tuple(guest(str(n), pid=n, rss_bytes=4 * GIB) for n in range(1, 301))
    host = {"guests": many, "total_bytes": 2048 * GIB, "available_bytes": 1400 * GIB}
    seen = [
        look(at, scans, unshared=400, sharing=sharing, **host)
        for at, scans, sharing in ((0, 0, 0), (926, 3, 89.9), (1852, 4, 89.9))
    ]
    trend = after(*seen)
    decision = decided(seen[-1], trend, CONFIG)
    assert decision.mode is Mode.REST
    assert decision.reason.endswith("a pass like the last takes 128 h 36 min at that")
