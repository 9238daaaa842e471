"""Guests with huge pages are left alone while memory is plenty, and merged in time when it will be short."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ksmtuned_py.config import Adaptive, Config, Guards
from ksmtuned_py.config import Policy as PolicySection
from ksmtuned_py.model import Counters, Decision, Guest, Knobs, Memory, Mode, Pause, Run, Slice, Snapshot
from ksmtuned_py.policy import decide as decided
from ksmtuned_py.policy.effort import PASSES_UNKNOWN
from ksmtuned_py.policy.need import Need
from ksmtuned_py.policy.plenty import MIND_SECONDS
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import GIB
from tests.support.filling import FillingHost
from tests.support.snapshots import guest, snapshot

CONFIG = Config()
EAGER = Config(adaptive=Adaptive(profile="eager"))
QUIET = Config(adaptive=Adaptive(profile="quiet"))
GUESTS = tuple(
    replace(guest(name, pid=pid, rss_bytes=8 * GIB), huge_bytes=7 * GIB) for name, pid in (("web", 1), ("db", 2))
)


def look(at: float, available_gib: float = 45, *, huge_gib: float = 14, total_gib: int = 64, **fields: Any) -> Snapshot:
    """A look at a host of 64 GiB, whose two guests of 8 GiB have 14 GiB in huge pages."""
    memory = Memory(
        total_bytes=total_gib * GIB,
        available_bytes=round(available_gib * GIB),
        anon_huge_bytes=round(huge_gib * GIB),
    )
    known: dict[str, Any] = {"guests": GUESTS, "memory": memory, "knobs": Knobs(run=Run.STOP)}
    return snapshot(at=at, **known | fields)


def after(*looks: Snapshot, config: Config = CONFIG) -> Trend:
    trend = Trend.begin(config)
    for each in looks:
        trend = trend.after(each, config)
    return trend


def decide(*looks: Snapshot, config: Config = CONFIG) -> Decision:
    return decided(looks[-1], after(*looks, config=config), config)


def is_left_alone(*looks: Snapshot, config: Config = CONFIG) -> bool:
    return after(*looks, config=config).plenty.left_alone


def steady(seconds: int = 100, **fields: Any) -> list[Snapshot]:
    return [look(at, **fields) for at in range(0, seconds + 1, 10)]


def test_guests_with_huge_pages_are_left_alone_and_it_is_said_why_and_until_when() -> None:
    decision = decide(*steady())
    assert (decision.mode, decision.rule, decision.knobs.run) == (Mode.OFF, "plenty", Run.STOP)
    assert decision.reason == (
        "leaving alone: 70.3 % available, no shortage in sight; merging would split 14 GiB of huge pages; "
        "begins at 27.5 %, or 42 s before it would be short"
    )
    assert decision.next_tick_seconds == CONFIG.daemon.idle_tick_seconds


def test_a_restart_leaves_them_alone_from_the_first_look_on() -> None:
    decision = decide(look(0))
    assert decision.rule == "plenty"
    assert decision.next_tick_seconds == CONFIG.daemon.tick_seconds  # one look tells nothing of how fast memory falls
    assert is_left_alone(look(0, guests=tuple(replace(each, huge_bytes=None) for each in GUESTS)))


@pytest.mark.parametrize(
    ("huge_gib", "each_gib"), [(0, None), (0, 7), (14, 0), (14, 0.7)], ids=["none", "thp_off", "small", "few"]
)
def test_guests_without_huge_pages_are_merged_as_if_there_was_no_plenty(
    huge_gib: float, each_gib: float | None
) -> None:
    huge_bytes = None if each_gib is None else round(each_gib * GIB)
    guests = tuple(replace(each, huge_bytes=huge_bytes) for each in GUESTS)
    decision = decide(look(0, huge_gib=huge_gib, guests=guests))
    assert (decision.mode, decision.knobs.run) == (Mode.BOOST, Run.MERGE)


def test_guests_that_nobody_has_looked_at_yet_are_merged_once_it_is_known_that_they_have_none() -> None:
    unknown = tuple(replace(each, huge_bytes=None) for each in GUESTS)
    small = tuple(replace(each, huge_bytes=0) for each in GUESTS)
    assert is_left_alone(look(0, guests=unknown))
    assert not is_left_alone(look(0, guests=unknown), look(1, guests=small))


def test_the_profile_eager_merges_at_all_times_and_other_policies_too() -> None:
    assert decide(*steady(), config=EAGER).mode is Mode.BOOST
    assert decide(*steady(), config=QUIET).rule == "plenty"
    pinned = Config(policy=PolicySection(name="fixed"))
    assert not is_left_alone(*steady(), config=pinned)
    assert decide(*steady(), config=pinned).knobs.run == Run.MERGE


def test_a_reload_between_profiles_takes_effect_at_the_next_look() -> None:
    trend = after(*steady(), config=EAGER)
    assert trend.boosting
    trend = trend.after(look(110), CONFIG)
    assert decided(look(110), trend, CONFIG).rule == "plenty"
    trend = trend.after(look(120), EAGER)
    assert decided(look(120), trend, EAGER).rule == "news"
    assert trend.news.number == 1


def test_it_ends_where_the_largest_guest_has_no_room_before_memory_is_short() -> None:
    """Short is 9.6 GiB, so 17.6 GiB have to be there, and a sixth more at first; 30 % are enough for any guest."""
    assert not is_left_alone(look(0, 20.4))
    assert is_left_alone(look(0, 20.6))
    assert is_left_alone(look(0, 20.6), look(900, 17.7))
    assert not is_left_alone(look(0, 20.6), look(900, 17.5))
    giant = (replace(GUESTS[0], rss_bytes=40 * GIB, huge_bytes=40 * GIB),)
    assert is_left_alone(look(0, 22.5, huge_gib=40, guests=giant), look(900, 19.3, huge_gib=40, guests=giant))
    rack = tuple(replace(guest(f"vm-{pid}", pid=pid, rss_bytes=8 * GIB), huge_bytes=8 * GIB) for pid in range(100))
    assert is_left_alone(look(0, 400, total_gib=2048, huge_gib=800, guests=rack))  # 19.5 %


def test_stalls_on_scarce_memory_and_swap_that_runs_out_end_it() -> None:
    assert is_left_alone(look(0, 21), look(900, 18.5))
    assert not is_left_alone(look(0, 18, pressure=snapshot(some_percent=50).pressure))
    swap = Memory(total_bytes=64 * GIB, available_bytes=45 * GIB, anon_huge_bytes=14 * GIB, swap_total_bytes=64 * GIB)
    assert not is_left_alone(look(0, memory=swap))


def falling(gib_per_second: float, until_gib: float, begin_gib: float = 45) -> list[Snapshot]:
    """Looks at the daemon's own times at memory that falls, from a minute before, until so much is left."""
    looks = steady(60, available_gib=begin_gib)
    trend = after(*looks)
    while True:
        began = looks[-1].clock.monotonic_seconds
        at = began + decided(looks[-1], trend, CONFIG).next_tick_seconds
        if (available := begin_gib - gib_per_second * (at - 60)) < until_gib:
            return looks
        looks.append(look(at, available))
        trend = trend.after(looks[-1], CONFIG)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 1.0])
def test_merging_begins_by_forecast_a_lead_before_memory_is_short(rate: float) -> None:
    """Four passes over 16 GiB take 16 s."""
    looks = falling(rate, 0.15 * 64)
    trends = [*accumulate(looks, lambda trend, each: trend.after(each, CONFIG), initial=Trend.begin(CONFIG))][1:]
    begins = next(number for number, trend in enumerate(trends) if not trend.plenty.left_alone)
    left_seconds = (looks[begins].memory.available_bytes / GIB - 0.15 * 64) / rate
    assert left_seconds > trends[begins].plenty.lead_seconds
    foreseen = next(number for number, trend in enumerate(trends) if trend.plenty.is_foreseen)
    assert trends[foreseen].need is Need.SHORT
    assert trends[foreseen].boosting
    assert (looks[foreseen].memory.available_bytes / GIB - 0.15 * 64) / rate > trends[begins].plenty.lead_seconds
    assert not any(trend.plenty.left_alone for trend in trends[begins:])


def test_what_is_foreseen_gets_the_share_of_a_core_that_the_need_will_have() -> None:
    looks = [*steady(60), *(look(60 + at, 45 - at) for at in range(1, 30))]
    decision = decide(*looks)
    assert decision.reason.startswith("boosting at 95 % of a core: memory becomes scarce in ")
    assert decision.next_tick_seconds == CONFIG.daemon.tick_seconds


def test_news_that_came_in_plenty_is_heard_when_it_ends() -> None:
    late = replace(guest("late", pid=3, rss_bytes=GIB), huge_bytes=GIB)
    trend = after(*steady(), look(110, guests=(*GUESTS, late)))
    assert (trend.news.number, trend.boosting) == (0, False)
    trend = trend.after(look(120, 9, guests=(*GUESTS, late)), CONFIG)
    assert trend.boosting
    assert trend.news.sentence == "new guests: db, late, web"
    assert trend.news.boost.since_seconds == 120  # what it takes is not counted from when the guest came


def test_growth_in_plenty_is_heard_when_it_ends() -> None:
    counters = Counters(full_scans=9, pages_sharing=100_000)
    merged = [look(at, 12, counters=replace(counters, full_scans=at), cpu_seconds=at / 10) for at in (0, 4, 8)]
    settled = after(*[replace(each, memory=replace(each.memory, available_bytes=9 * GIB)) for each in merged])
    assert not settled.boosting
    for at in range(10, 200, 10):
        settled = settled.after(look(at, counters=counters, cpu_seconds=0.8), CONFIG)
    assert settled.plenty.left_alone
    grown = (replace(GUESTS[0], rss_bytes=12 * GIB), GUESTS[1])
    quiet = settled.after(look(200, counters=counters, cpu_seconds=0.8, guests=grown), CONFIG)
    assert quiet.news.number == settled.news.number
    ended = quiet.after(look(210, 9, counters=counters, cpu_seconds=0.8, guests=grown), CONFIG)
    assert ended.boosting
    assert ended.news.number == settled.news.number + 1


def test_a_boost_that_plenty_interrupts_goes_on_after_it_and_plenty_is_no_time_that_it_took() -> None:
    trend = after(*(look(at, 9) for at in range(5)))
    done_at_pass = trend.news.boost.done_at_pass
    for at in range(5, 5000, 10):
        trend = trend.after(look(at, 45), CONFIG)
    assert trend.plenty.left_alone
    trend = trend.after(look(5000, 9), CONFIG)
    assert decided(look(5000, 9), trend, CONFIG).mode is Mode.BOOST
    assert trend.news.boost.since_seconds >= 4990
    assert trend.news.boost.done_at_pass >= done_at_pass
    assert trend.effort.passes == PASSES_UNKNOWN


def test_merged_memory_stays_merged_in_plenty_and_no_loss_is_found_by_counters_that_nobody_corrects() -> None:
    """A boost that was cut short after two losing passes tells of no loss; one that was found before is given back."""
    lost = Counters(pages_sharing=1000, pages_unshared=2_000_000, general_profit=-GIB)
    trend = after(*(look(at, 9, counters=replace(lost, full_scans=at)) for at in range(3)))
    for at in range(3, 400, 3):
        trend = trend.after(look(at, 45, counters=replace(lost, full_scans=2)), CONFIG)
    assert trend.plenty.left_alone
    assert decided(look(400, counters=lost), trend, CONFIG).knobs.run == Run.STOP

    given_up = after(*(look(at, 9, counters=replace(lost, full_scans=at)) for at in range(70)))
    assert given_up.given_up.until_seconds is not None
    for at in range(70, 200, 5):
        given_up = given_up.after(look(at, 45, counters=replace(lost, full_scans=69)), CONFIG)
    assert decided(look(200, counters=lost), given_up, CONFIG).knobs.run == Run.UNMERGE


def test_the_lead_goes_by_the_passes_that_the_last_thorough_boost_took() -> None:
    first = after(look(0, 9, counters=Counters(pages_unshared=1000, pages_volatile=50_000)))
    trend = first
    for at, scans in ((1, 2), (2, 3), (3, 6)):
        counters = Counters(full_scans=scans, pages_unshared=1000, pages_volatile=50_000)
        trend = trend.after(look(at, 9, counters=counters, cpu_seconds=at), CONFIG)
    assert not trend.boosting
    assert trend.effort.passes == 3
    merged = Counters(pages_sharing=8 * GIB // 4096)
    half = first.after(look(1, 9, counters=merged), CONFIG).plenty.lead_seconds
    assert half == pytest.approx(first.plenty.lead_seconds / 2)


def test_the_lead_goes_by_what_a_page_cost_in_that_boost_and_not_in_the_cruise_after_it() -> None:
    """Two million pages took 4 CPU-s. In the cruise smart_scan passes over most, and few are scanned."""

    def scanned(at: float, scans: int, pages: int, cpu: float) -> Snapshot:
        counters = Counters(full_scans=scans, pages_unshared=1000, pages_scanned=pages)
        return look(at, 9, counters=counters, cpu_seconds=cpu)

    trend = after(scanned(0, 0, 0, 0), scanned(2, 3, 1_000_000, 2), scanned(4, 4, 2_000_000, 4))
    assert trend.effort.page_cost_seconds == pytest.approx(2e-6)
    cruised = trend.after(scanned(100, 5, 2_010_000, 5), CONFIG).after(scanned(200, 6, 2_020_000, 6), CONFIG)
    assert cruised.page_cost_seconds > 10e-6
    assert cruised.plenty.lead_seconds == pytest.approx(16 * GIB / 4096 * 2e-6 * cruised.effort.passes / 0.95)


def test_without_guests_nothing_is_left_alone() -> None:
    assert decide(look(0, guests=())).rule == "no_guests"
    kept_out = tuple(replace(each, merge=False) for each in GUESTS)
    assert not is_left_alone(look(0, guests=kept_out))


def test_memory_that_a_process_only_claims_to_have_in_huge_pages_does_not_count() -> None:
    liar = replace(guest(rss_bytes=GIB), huge_bytes=10**15)
    assert after(look(0, huge_gib=0.05, guests=(liar,))).plenty.stake.huge_bytes <= 0.05 * GIB
    assert not is_left_alone(look(0, huge_gib=0.05, guests=(liar,)))


def test_memory_that_comes_or_goes_at_run_time_is_no_shortage_that_is_foreseen() -> None:
    plugged = [*steady(), look(110, 109, total_gib=128)]
    assert after(*plugged).plenty.forecast.short_in_seconds == inf
    assert is_left_alone(*plugged, look(120, 46))


def test_a_cache_that_gives_way_is_available() -> None:
    memory = Memory(total_bytes=64 * GIB, available_bytes=GIB, anon_huge_bytes=14 * GIB, arc_reclaimable_bytes=44 * GIB)
    assert is_left_alone(look(0, memory=memory))


@pytest.mark.parametrize("rate", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("phase", [0, 7])
def test_on_the_model_a_host_that_fills_is_merged_before_it_is_short(rate: float, phase: int) -> None:
    host = FillingHost(rate, from_seconds=120 + phase)
    ticks = []
    for tick in host.ticks(CONFIG):
        ticks.append(tick)
        if tick.snapshot.memory.available_fraction < 0.15 or host.now_seconds > 1000:
            break
    full = 8 * GIB * 7 // 8
    before = [tick for tick in ticks if tick.snapshot.clock.monotonic_seconds < 120]
    assert {tick.decision.rule for tick in before} == {"plenty"}
    began = next(tick for tick in ticks if tick.decision.knobs.run == Run.MERGE)
    left_seconds = (began.snapshot.memory.available_fraction - 0.15) * 64 / rate
    saved = next(tick.snapshot.saved_bytes for tick in ticks if unmerged_fraction(tick.snapshot) < 0.15)
    if rate < 2:
        assert left_seconds > began.trend.plenty.lead_seconds
        assert saved > 0.95 * full
    assert left_seconds > 10  # at 2 GiB a second all is over within 19 s, and ksmd needs 8 for one pass


def unmerged_fraction(seen: Snapshot) -> float:
    """What would be available if nothing were merged."""
    return (seen.memory.available_bytes - seen.saved_bytes) / seen.memory.total_bytes


@pytest.mark.parametrize("period", [90, 200, 300])
def test_memory_that_swings_ends_plenty_less_and_less_often(period: int) -> None:
    """It falls by 20 GiB at a rate at which it would be short within a minute, and rises again."""

    def swinging(at: float) -> float:
        return 45 - min(20, 2 * max(0.0, at % period - 10)) * (at % period < period * 0.8)

    trends = trends_of([look(at, swinging(at)) for at in range(0, 3600, 2)])
    alone = [trend.plenty.left_alone for trend in trends]
    ends = [number for number, (before, now) in enumerate(pairwise(alone)) if before and not now]
    assert 1 <= len(ends) <= 4
    assert all(alone[len(alone) // 2 :])


def test_an_end_of_plenty_that_came_true_makes_nobody_careless() -> None:
    looks = [look(at, 45 if at % 200 < 100 else max(5, 45 - 2 * (at % 200 - 100))) for at in range(0, 2000, 2)]
    assert {trend.plenty.swing_seconds for trend in trends_of(looks)} == {60}


def growing(seconds: int, *sizes_gib: float, mapped_gib: float) -> tuple[Guest, ...]:
    """The guests, and more that took a GiB a second each from second 100 on, up to these sizes."""
    grown = [max(0.0, min(size, seconds - 100)) for size in sizes_gib]
    return GUESTS + tuple(
        replace(
            guest(f"new-{pid}", pid=pid, rss_bytes=round(size * GIB)),
            virtual_bytes=round(mapped_gib * GIB),
            huge_bytes=round(size * GIB),
        )
        for pid, size in enumerate(grown, 50)
        if size
    )


def alone_while(*sizes_gib: float, mapped_gib: float) -> bool:
    """Whether guests are left alone on a host with 200 of 256 GiB available, in which such guests grow."""
    looks = []
    for at in range(180):
        guests = growing(at, *sizes_gib, mapped_gib=mapped_gib)
        taken = sum(each.rss_bytes for each in guests[2:]) / GIB
        looks.append(look(at, 150 - taken, total_gib=256, huge_gib=100, guests=guests))
    return all(trend.plenty.left_alone for trend in trends_of(looks))


def test_one_guest_that_takes_its_memory_is_no_trend_but_two_are() -> None:
    assert alone_while(60, mapped_gib=64)
    assert not alone_while(40, 40, mapped_gib=44)
    assert not alone_while(60, mapped_gib=10_000)  # it may take all there is
    assert not alone_while(60, mapped_gib=0)  # nobody can tell


def in_slice(available_gib: float) -> tuple[Guest, ...]:
    """The guests in a slice with a limit of 20 GiB, of which so much is left."""
    limited = Slice("/machine.slice", 20 * GIB, round(available_gib * GIB))
    return tuple(replace(each, slice=limited) for each in GUESTS)


def test_a_slice_that_fills_counts_as_the_host_does() -> None:
    full = decide(look(0, guests=in_slice(4)))
    assert full.mode is Mode.BOOST  # comfort is 30 % of 20 GiB
    roomy = decide(look(0, guests=in_slice(8)))
    assert roomy.reason.startswith("leaving alone: 40 % of machine.slice available")
    filling = [look(at, guests=in_slice(18 - at / 5)) for at in range(60)]
    assert after(*filling).need is Need.SHORT
    assert "machine.slice" in after(*filling).plenty.verdict(CONFIG).sentence


def test_a_slice_that_is_always_full_is_no_lasting_need_of_the_host() -> None:
    looks = [look(at, guests=in_slice(max(0, 18 - at / 5))) for at in range(90)]
    assert after(*looks).need is Need.SHORT
    later = [look(at, guests=in_slice(0)) for at in range(90, 400, 10)]
    assert after(*looks, *later).need is Need.CALM
    assert not is_left_alone(*looks, *later)


def test_a_tiny_slice_does_not_decide_for_all_guests() -> None:
    tiny = replace(guest("tiny", pid=9, rss_bytes=GIB), slice=Slice("/user.slice", GIB, 0))
    assert is_left_alone(look(0, guests=(*GUESTS, tiny)))


def test_five_thousand_guests_are_left_alone_in_one_look() -> None:
    many = tuple(replace(guest(f"vm-{pid}", pid=pid, rss_bytes=GIB), huge_bytes=GIB) for pid in range(5000))
    decision = decide(look(0, 4000, total_gib=10_240, huge_gib=5000, guests=many))
    assert decision.reason.startswith("leaving alone: 39.1 % available")


HISTORIES = st.lists(
    st.tuples(st.floats(0.01, 30), st.floats(0, 64), st.sampled_from([0.0, 14.0])), min_size=1, max_size=40
)


def looks_of(history: Sequence[tuple[float, float, float]]) -> list[Snapshot]:
    at, looks = 0.0, []
    for wait, available, huge in history:
        at += wait
        looks.append(look(at, available, huge_gib=huge))
    return looks


def trends_of(looks: Sequence[Snapshot]) -> list[Trend]:
    trend, trends = Trend.begin(CONFIG), []
    for each in looks:
        trend = trend.after(each, CONFIG)
        trends.append(trend)
    return trends


@given(HISTORIES)
def test_nobody_is_left_alone_below_comfort_or_when_memory_is_short_or_soon_will_be(
    history: list[tuple[float, float, float]],
) -> None:
    for trend in trends_of(looks_of(history)):
        plenty = trend.plenty
        if plenty.left_alone:
            assert trend.need < Need.SHORT
            assert plenty.supply.available_bytes > plenty.comfort_bytes
            assert plenty.forecast.short_in_seconds > 2 * plenty.lead_seconds


@given(HISTORIES)
@example([(1, 0, 0), (1, 21, 14), (29, 21, 0), (30, 21, 0), (1, 18, 0), (1, 18, 14)])  # huge pages come and go
def test_the_mind_is_changed_at_most_once_a_minute(history: list[tuple[float, float, float]]) -> None:
    looks = looks_of(history)
    states = [trend.plenty.left_alone for trend in trends_of(looks)]
    times = [each.clock.monotonic_seconds for each in looks]
    changes = list(zip(times[1:], states[:-1], states[1:], strict=True))
    for before, now in ((False, True), (True, False)):
        turned = [at for at, *turn in changes if turn == [before, now]]
        assert all(later - sooner >= MIND_SECONDS for sooner, later in pairwise(turned))


@given(HISTORIES)
def test_less_memory_is_never_more_plenty(history: list[tuple[float, float, float]]) -> None:
    looks = looks_of(history)
    less = [replace(looks[-1], memory=replace(looks[-1].memory, available_bytes=size)) for size in (0, 9 * GIB)]
    for each in less:
        if each.memory.available_bytes <= looks[-1].memory.available_bytes:
            assert is_left_alone(*looks[:-1], each) <= is_left_alone(*looks)


@given(HISTORIES)
def test_a_host_without_huge_pages_is_managed_as_if_this_rule_was_not_there(
    history: list[tuple[float, float, float]],
) -> None:
    looks = looks_of([(wait, available, 0.0) for wait, available, _ in history])
    for trend in trends_of(looks):
        assert not trend.plenty.left_alone
        assert not trend.plenty.is_foreseen
    merged = [replace(each, guests=tuple(replace(one, huge_bytes=0) for one in GUESTS)) for each in looks]
    assert decide(*looks).knobs == decide(*merged).knobs


BACK = Config(adaptive=Adaptive(huge_pages_back=True))


def spare_bytes(*looks: Snapshot, config: Config = CONFIG) -> int | None:
    trend = after(*looks, config=config)
    return trend.plenty.spare_bytes(config, decided(looks[-1], trend, config))


def test_a_pause_and_an_inhibit_window_spare_the_guests_from_giving_back_too() -> None:
    paused = replace(steady()[-1], pause=Pause(until_unix_seconds=10_000, reason="live migration"))
    assert spare_bytes(*steady(), paused, config=BACK) is None
    always = Guards(inhibit=("00:00-24:00",))
    assert spare_bytes(*steady(), config=Config(adaptive=Adaptive(huge_pages_back=True, guards=always))) is None


def test_what_may_be_spent_on_huge_pages_leaves_ample_memory() -> None:
    """Comfort is 27.5 % of 64 GiB (short, and room for a guest of 8 GiB), and a sixth more is ample."""
    spare = spare_bytes(*steady(), config=BACK)
    assert spare == pytest.approx((45 - 17.6 * 35 / 30) * GIB, rel=0.001)
    assert spare_bytes(*steady()) is None
    assert spare_bytes(look(0, 12), config=BACK) is None


def test_guests_whose_huge_pages_were_all_split_are_left_alone_so_that_they_get_them_back() -> None:
    split = tuple(replace(each, huge_bytes=0) for each in GUESTS)
    looks = [look(at, huge_gib=0, guests=split) for at in range(0, 101, 10)]
    assert is_left_alone(*looks, config=BACK)
    assert not is_left_alone(*looks)
    eager = Config(adaptive=Adaptive(huge_pages_back=True, profile="eager"))
    assert not is_left_alone(*looks, config=eager)


@given(st.lists(st.floats(0, 60), min_size=1, max_size=12))
def test_it_is_never_spent_while_it_is_not_plenty(available: list[float]) -> None:
    trend = Trend.begin(BACK)
    for at, each in enumerate(available):
        trend = trend.after(look(60.0 * at, each), BACK)
        spare = trend.plenty.spare_bytes(BACK, decided(look(60.0 * at, each), trend, BACK))
        assert (spare is not None) == trend.plenty.left_alone
        assert spare is None or spare < round(each * GIB) - trend.plenty.comfort_bytes + 1
