"""The trend remembers the right things from snapshot to snapshot."""

from dataclasses import replace
from typing import Any, get_args

import pytest

from ksmtuned_py.config import Adaptive, Config
from ksmtuned_py.config import Policy as PolicySection
from ksmtuned_py.config.types import PolicyName
from ksmtuned_py.model import Counters, ForeignWrite, Guest, GuestKsm, Knobs, Run, Snapshot
from ksmtuned_py.policy import decide
from ksmtuned_py.policy.need import Need
from ksmtuned_py.policy.news import ASKING_SECONDS
from ksmtuned_py.policy.scanner import Passes
from ksmtuned_py.policy.trend import FOREIGN_HOLD_SECONDS, Trend
from ksmtuned_py.units import GIB, MIB
from tests.support.snapshots import guest, snapshot

CONFIG = Config()


def after(*snapshots: Snapshot, config: Config = CONFIG) -> Trend:
    trend = Trend.begin(config)
    for each in snapshots:
        trend = trend.after(each, config)
    return trend


def passes(at: float, full_scans: int, *, cpu: float = 0, sharing: int = 0, **fields: Any) -> Snapshot:
    counters = Counters(full_scans=full_scans, pages_sharing=sharing, pages_unshared=1000, pages_volatile=3000)
    return snapshot(at=at, counters=counters, cpu_seconds=cpu, **fields)


def test_a_pass_is_told_with_its_cost_and_gain() -> None:
    trend = after(passes(0, 5), passes(10, 5, cpu=1), passes(20, 6, cpu=2, sharing=262_144))
    last = trend.passes.last
    assert last is not None
    assert (last.seconds, last.cpu_seconds, last.gained_bytes) == (20, 2, GIB)
    assert last.cpu_seconds_per_gib == 2
    assert trend.passes.done == 1


def test_the_same_past_is_judged_by_the_configuration_of_each_tick() -> None:
    eager = Config(adaptive=Adaptive(profile="eager"))
    trend = after(passes(0, 5), passes(10, 6, cpu=15, sharing=262_144))
    assert (trend.price, trend.last_pass_pays) == (5, False)
    reloaded = trend.after(passes(20, 6, cpu=15, sharing=262_144), eager)
    assert (reloaded.price, reloaded.last_pass_pays) == (20, True)


def test_passes_go_on_counting_when_unmerging_resets_the_kernels_counter() -> None:
    counted = Passes()
    snapshots = [passes(at, scans) for at, scans in enumerate((100, 103, 1, 2))]
    for before, now in zip([None, *snapshots], snapshots, strict=False):
        counted = counted.after(now, before)
    assert counted.done == 3 + 1 + 1


def test_all_guests_are_news_at_the_start_and_settled_after_two_whole_passes() -> None:
    trend = after(passes(0, 10))
    assert trend.boosting
    assert trend.news.sentence == "new guest: web"
    assert trend.news.boost.done_at_pass == 3  # one pass is under way
    trend = trend.after(passes(1, 12), CONFIG)
    assert trend.boosting
    trend = trend.after(passes(2, 13), CONFIG)
    assert not trend.boosting


def test_a_boost_goes_on_while_passes_pay() -> None:
    trend = after(passes(0, 0), passes(1, 3, cpu=1, sharing=262_144))
    assert trend.passes.done == trend.news.boost.done_at_pass == 3
    assert trend.boosting
    trend = trend.after(passes(2, 4, cpu=2, sharing=262_144), CONFIG)
    assert not trend.boosting
    trend = trend.after(passes(3, 5, cpu=3, sharing=524_288), CONFIG)
    assert not trend.boosting  # a good pass does not reopen settled news, for that is the work of cruising


def test_a_stuck_pass_does_not_count_but_not_for_ever() -> None:
    def stuck(at: float, scans: int) -> Snapshot:
        return snapshot(at=at, counters=Counters(full_scans=scans, pages_sharing=1000, pages_volatile=9000))

    trend = after(stuck(0, 0))
    for scans in (1, 2, 3, 4, 5):
        trend = trend.after(stuck(scans, scans), CONFIG)
        assert trend.boosting
    assert trend.news.boost.mute_looks == 3
    trend = trend.after(stuck(6, 6), CONFIG)
    assert not trend.boosting  # this is no bad luck, because the memory changes all the time


def test_on_a_big_host_a_new_guest_gets_a_quick_pass_if_a_pass_is_cheap_enough() -> None:
    many = tuple(guest(f"vm-{number}", pid=100 + number, rss_bytes=10 * GIB) for number in range(100))
    paying = after(passes(0, 0, guests=many), passes(1, 2, guests=many, sharing=50_000_000))
    settled = paying.after(passes(2, 3, guests=many, sharing=50_000_000, cpu=1000), CONFIG)
    assert not settled.boosting
    small = guest("late", pid=900)
    quick = paying.after(passes(3, 2, guests=(*many, small), sharing=50_000_000), CONFIG).news
    assert quick.sentence == "the guests' memory grew by 1 GiB, worth a quick pass"
    assert quick.boost.thorough_until_pass == paying.news.boost.thorough_until_pass
    assert settled.after(passes(3, 3, guests=(*many, small), sharing=50_000_000, cpu=1000), CONFIG).news.number == 1
    large = guest("large", pid=901, rss_bytes=220 * GIB)
    grown = settled.after(passes(3, 3, guests=(*many, large), sharing=50_000_000, cpu=1000), CONFIG).news
    assert "grew by 220 GiB" in grown.sentence


def test_on_a_big_host_guests_that_take_the_place_of_others_are_growth_once_they_are_worth_it() -> None:
    many = tuple(guest(f"vm-{number}", pid=100 + number, rss_bytes=10 * GIB) for number in range(100))
    trend = after(passes(0, 0, guests=many), passes(1, 2, guests=many), passes(2, 3, guests=many, cpu=1000))
    worthwhile_guests = 0
    while trend.news.number == 1:
        worthwhile_guests += 1
        new = guest(f"new-{worthwhile_guests}", pid=1000 + worthwhile_guests, rss_bytes=10 * GIB)
        many = (*many[1:], new)
        trend = trend.after(passes(2 + worthwhile_guests, 3, guests=many, cpu=1000), CONFIG)
    assert 2 < worthwhile_guests < 100
    assert f"grew by {worthwhile_guests * 10} GiB" in trend.news.sentence


def test_growth_is_news_when_it_could_pay_for_its_passes() -> None:
    trend = after(passes(0, 0), passes(1, 5))
    number = trend.news.number
    grown = guest(rss_bytes=GIB + 15 * MIB)
    assert trend.after(passes(2, 5, guests=(grown,)), CONFIG).news.number == number
    grown = guest(rss_bytes=GIB + 500 * MIB)
    news = trend.after(passes(2, 5, guests=(grown,)), CONFIG).news
    assert news.number == number + 1
    assert "grew by 500 MiB" in news.sentence


def test_cheap_pages_do_not_make_little_growth_worthwhile() -> None:
    """2.6 million pages at 2 us are worth 0.3 GiB at the calm price, and 2 thorough passes 2 GiB, also after 0.2 us."""

    def look(at: float, full_scans: int, pages: int, cpu: float, gib: float) -> Snapshot:
        counters = Counters(full_scans=full_scans, pages_unshared=1000, pages_scanned=pages)
        return snapshot(at=at, counters=counters, cpu_seconds=cpu, guests=(guest(rss_bytes=round(gib * GIB)),))

    settled = after(look(0, 0, 0, 0, 10), look(10, 3, 2_600_000, 5.2, 10))
    for at in range(11, 20):
        pages = 2_600_000 + at * 100_000
        settled = settled.after(look(at, 3, pages, 5.2 + at * 0.02, 10.3), CONFIG)
    assert settled.scanner.cost_seconds == pytest.approx(0.2e-6, rel=0.1)
    assert settled.news.number == 1
    assert "quick pass" in settled.after(look(21, 3, 4_700_000, 5.62, 11.5), CONFIG).news.sentence
    assert "worth passes from" in settled.after(look(21, 3, 4_700_000, 5.62, 13.5), CONFIG).news.sentence


def test_what_a_quick_pass_leaves_unmerged_is_news_once_it_is_unusual_and_worth_a_thorough_one() -> None:
    many = tuple(guest(f"vm-{number}", pid=100 + number, rss_bytes=10 * GIB) for number in range(100))
    half = Counters(full_scans=3, pages_sharing=500 * GIB // 4096, pages_unshared=500 * GIB // 4096)
    trend = after(passes(0, 0, guests=many), snapshot(at=1, counters=half, cpu_seconds=10, guests=many))
    trend = trend.after(snapshot(at=2, counters=replace(half, full_scans=4), cpu_seconds=20, guests=many), CONFIG)
    assert not trend.boosting

    def look(unmerged_gib: int) -> Snapshot:
        counters = replace(half, full_scans=6, pages_unshared=half.pages_unshared + unmerged_gib * GIB // 4096)
        return snapshot(at=4, counters=counters, cpu_seconds=30, guests=(*many, late))

    late = guest("late", pid=900, rss_bytes=50 * GIB)
    trend = trend.after(
        snapshot(at=3, counters=replace(half, full_scans=4), cpu_seconds=20, guests=(*many, late)), CONFIG
    )
    assert "quick pass" in trend.news.sentence
    looked = trend.after(look(50), CONFIG)
    assert not looked.boosting  # it gained nothing
    assert (
        looked.after(look(50), CONFIG).news.number == looked.news.number
    )  # half of that would be usual, and the other half is too little
    again = looked.after(look(300), CONFIG)
    assert "150 GiB more found no equal" in again.news.sentence
    assert again.news.boost.thorough_until_pass > again.passes.done


def test_a_quick_pass_is_not_taken_for_stuck_because_it_skips() -> None:
    many = tuple(guest(f"vm-{number}", pid=100 + number, rss_bytes=10 * GIB) for number in range(100))
    trend = after(passes(0, 0, guests=many), passes(1, 3, guests=many, cpu=10))
    late = guest("late", pid=900, rss_bytes=50 * GIB)
    trend = trend.after(passes(2, 3, guests=(*many, late), cpu=10), CONFIG)
    assert trend.news.boost.open
    skipping = Counters(full_scans=5, pages_sharing=1000, pages_volatile=9000, pages_skipped=2 * 9000)
    trend = trend.after(snapshot(at=3, counters=skipping, cpu_seconds=20, guests=(*many, late)), CONFIG)
    assert not trend.boosting
    assert trend.news.boost.mute_looks == 0


def test_scarce_memory_on_a_big_host_calls_for_quick_passes_at_full_budget() -> None:
    many = tuple(guest(f"vm-{number}", pid=100 + number, rss_bytes=10 * GIB) for number in range(100))
    calm = after(passes(0, 0, guests=many), passes(1, 3, guests=many, cpu=10), passes(2, 4, guests=many, cpu=20))
    scarce = calm.after(passes(3, 4, guests=many, cpu=20, available_bytes=GIB), CONFIG)
    assert "scarce" in scarce.news.sentence
    assert scarce.news.boost.done_at_pass == 4 + 1 + 2
    assert scarce.news.boost.thorough_until_pass <= scarce.passes.done


def test_a_guest_arrives_when_it_asks_for_merging() -> None:
    trend = after(passes(0, 0), passes(1, 4))
    mute = replace(guest("mute", pid=300, rss_bytes=9 * GIB), ksm=GuestKsm(mergeable=False))
    trend = trend.after(passes(2, 4, guests=(guest(), mute)), CONFIG)
    assert not trend.boosting
    assert trend.news.asking_until_seconds == 2 + ASKING_SECONDS  # it is looked at often meanwhile
    asked = replace(mute, ksm=GuestKsm(mergeable=True))
    assert trend.after(passes(8, 4, guests=(guest(), asked)), CONFIG).news.sentence == "new guest: mute"


def test_slow_growth_adds_up() -> None:
    trend = after(passes(0, 0), passes(1, 5))
    number = trend.news.number
    for step in range(1, 80):
        trend = trend.after(passes(1 + step, 5, guests=(guest(rss_bytes=GIB + step * 4 * MIB),)), CONFIG)
    assert trend.news.number > number


def test_a_guest_that_comes_back_with_the_same_pid_is_news() -> None:
    trend = after(passes(0, 0), passes(1, 5))
    again = replace(guest(), start_ticks=999)
    assert trend.after(passes(2, 5, guests=(again,)), CONFIG).news.number == trend.news.number + 1


def test_passes_move_apart_while_they_find_nothing_and_together_at_news() -> None:
    trend = after(passes(0, 0), passes(1, 4))
    gaps = []
    for number in range(5, 14):
        trend = trend.after(passes(number, number), CONFIG)
        gaps.append(trend.gap_seconds)
    assert gaps == [240, 480, 960, 1920, 3600, 3600, 3600, 3600, 3600]  # 120 when the boost's last pass found nothing
    trend = trend.after(passes(20, 13, guests=(guest(), guest("db", pid=101))), CONFIG)
    assert trend.gap_seconds == 60


def test_scarce_memory_is_news() -> None:
    trend = after(passes(0, 0), passes(1, 4))
    trend = trend.after(passes(2, 4, available_bytes=GIB), CONFIG)
    assert trend.need is Need.SHORT
    assert trend.boosting
    assert "scarce" in trend.news.sentence


def test_each_foreign_write_doubles_the_time_hands_are_off() -> None:
    write = ForeignWrite(knob="pages_to_scan", ours=500, seen=64)
    trend = after(snapshot(at=0, foreign=(write,), suspects=("ksmtuned",)))
    assert trend.foreign.until_seconds == FOREIGN_HOLD_SECONDS
    assert "pages_to_scan is 64 where we wrote 500" in trend.foreign.sentence
    assert "ksmtuned" in trend.foreign.sentence
    trend = trend.after(snapshot(at=100, foreign=(write,)), CONFIG)
    assert trend.foreign.until_seconds == 100 + 2 * FOREIGN_HOLD_SECONDS
    trend = trend.after(snapshot(at=100_000), CONFIG)
    assert trend.foreign.times == 0


def test_hands_are_still_off_for_an_hour_after_months_of_somebody_elses_writes() -> None:
    write, trend = ForeignWrite(knob="pages_to_scan", ours=500, seen=64), Trend.begin(Config())
    for hour in range(2000):
        trend = trend.after(snapshot(at=3700.0 * hour, foreign=(write,)), CONFIG)
    assert trend.foreign.until_seconds == 3700.0 * 1999 + 3600


def test_copy_on_write_is_a_storm_only_when_it_is_much() -> None:
    merged = Counters(pages_sharing=1_000_000)
    quiet = after(snapshot(at=0, counters=merged), snapshot(at=60, counters=merged, cow_ksm=5000))
    assert quiet.copy_on_write.storm_until_seconds == 0
    storm = after(snapshot(at=0, counters=merged), snapshot(at=60, counters=merged, cow_ksm=200_000))
    assert storm.copy_on_write.pages_per_minute == pytest.approx(200_000)
    assert storm.copy_on_write.storm_until_seconds == 120


def test_what_we_unmerge_ourselves_is_no_storm() -> None:
    merged, cow = Counters(pages_sharing=1_000_000), 200_000
    begun = snapshot(at=0, counters=merged)
    off = replace(guest(), switched_off=True)
    switched = after(begun, snapshot(at=60, counters=merged, cow_ksm=cow, guests=(off,)))
    assert switched.copy_on_write.pages_per_minute == switched.copy_on_write.storm_until_seconds == 0
    unmerged = snapshot(at=60, cow_ksm=1_000_000, knobs=Knobs(run=Run.UNMERGE))
    assert after(begun, unmerged).copy_on_write.storm_until_seconds == 0
    unshared = replace(snapshot(at=60, counters=merged, cow_ksm=1_000_000), giving_back=True)
    ended = snapshot(at=120, counters=merged, cow_ksm=2_000_000)
    assert after(begun, unshared).copy_on_write.storm_until_seconds == 0
    assert after(begun, unshared, ended).copy_on_write.storm_until_seconds == 0  # it went on when we looked
    later = snapshot(at=120, counters=merged, cow_ksm=2 * cow, guests=(off,))
    assert switched.after(later, CONFIG).copy_on_write.storm_until_seconds == 180  # these writes are the guests' own


def losing(at: float, scans: int, guests: tuple[Guest, ...] | None = None) -> Snapshot:
    counters = Counters(full_scans=scans, pages_unshared=500_000, pages_volatile=10_000)
    return snapshot(at=at, counters=counters, guests=guests)


def test_two_losing_passes_mean_giving_up_for_an_hour_then_two() -> None:
    trend = after(losing(0, 0), losing(1, 2))
    assert trend.boosting  # the news is not settled, because memory has not had its two whole passes
    assert trend.given_up.until_seconds is None
    trend = trend.after(losing(3, 3), CONFIG)
    assert not trend.boosting
    assert trend.given_up.until_seconds is None  # three seconds tell nothing of guests that have just begun
    trend = trend.after(losing(61, 3), CONFIG)
    assert trend.given_up.until_seconds == 61 + 3600
    trend = trend.after(losing(4000, 3), CONFIG)  # the end of the time is news, and it counts from the start again
    assert trend.given_up.until_seconds is None
    assert trend.boosting
    trend = trend.after(losing(4001, 6), CONFIG).after(losing(4061, 6), CONFIG)
    assert trend.given_up.until_seconds == 4061 + 2 * 3600
    paying = replace(losing(20_000, 8), counters=Counters(full_scans=8, general_profit=GIB))
    trend = trend.after(losing(19_999, 6), CONFIG).after(paying, CONFIG)  # another try, and this one pays
    assert trend.given_up.times == 0


def test_merging_is_given_up_for_a_day_at_most_however_often_it_was_at_a_loss() -> None:
    config = Config.model_validate({"adaptive": {"pass_gap_max_seconds": 3600}})
    trend = Trend.begin(config)
    for number in range(1100):
        at, scans = 100_000.0 * number, 6 * number
        for seconds, passes in ((0, 0), (1, 3), (2, 6), (62, 6)):
            trend = trend.after(losing(at + seconds, scans + passes), config)
    assert trend.given_up.until_seconds == 100_000.0 * 1099 + 62 + 86_400


def test_news_ends_giving_up() -> None:
    trend = after(losing(0, 0), losing(1, 3), losing(61, 3))
    assert trend.given_up.until_seconds is not None
    trend = trend.after(losing(62, 3, guests=(guest(), guest("db", pid=101))), CONFIG)
    assert trend.given_up.until_seconds is None


@pytest.mark.parametrize("before", get_args(PolicyName))
@pytest.mark.parametrize("name", get_args(PolicyName))
def test_a_policy_decides_by_its_own_state_whichever_policy_was_before(before: PolicyName, name: PolicyName) -> None:
    now, config = snapshot(), Config(policy=PolicySection(name=name))
    trend = Trend.begin(Config(policy=PolicySection(name=before)))
    assert type(trend.after(now, config).policy_state) is type(Trend.begin(config).policy_state)
    assert decide(now, trend.after(now, config), config) == decide(now, Trend.begin(config).after(now, config), config)
