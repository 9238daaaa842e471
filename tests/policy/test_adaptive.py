"""The adaptive policy's laws, and each of its rules once."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ksmtuned_py.config import Adaptive, Config, Guards
from ksmtuned_py.model import Counters, Decision, ForeignWrite, GuestKsm, Knobs, Mode, Snapshot, Wake
from ksmtuned_py.plan import plan
from ksmtuned_py.policy import decide as decided
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import GIB
from tests.support.snapshots import guest, snapshot

CONFIG = Config()


def decide(*snapshots: Snapshot, config: Config = CONFIG) -> Decision:
    """The decision at the last of these snapshots."""
    trend = Trend.begin(config)
    for each in snapshots:
        trend = trend.after(each, config)
    return decided(snapshots[-1], trend, config)


def settled(**fields: Any) -> tuple[Snapshot, ...]:
    """Snapshots up to the end of a boost whose last pass gained nothing."""
    counters = Counters(full_scans=0, pages_sharing=50_000, pages_unshared=50_000)
    return tuple(
        snapshot(at=at, counters=replace(counters, full_scans=scans), cpu_seconds=at / 10, **fields)
        for at, scans in ((0, 0), (5, 3), (10, 4))
    )


def guarded(**guards: Any) -> Config:
    return Config(adaptive=Adaptive(guards=Guards.model_validate(guards)))


def test_news_boosts_without_smart_scan() -> None:
    decision = decide(snapshot())
    assert (decision.mode, decision.rule) == (Mode.BOOST, "news")
    assert decision.reason == "boosting at 60 % of a core: new guest: web, 0 ms ago; 2 more passes to go"
    assert (decision.knobs.run, decision.knobs.smart_scan, decision.knobs.advisor_mode) == (1, 0, "none")
    assert decision.next_tick_seconds == CONFIG.daemon.tick_seconds


def test_smart_scan_stays_on_in_a_boost_as_long_as_it_skips_next_to_nothing() -> None:
    def look(at: float, passes: int, skipped: int, tracked: int = 1000, **fields: Any) -> Snapshot:
        counters = Counters(full_scans=passes, pages_unshared=tracked, pages_skipped=skipped)
        return snapshot(at=at, counters=counters, **fields)

    empty = look(0, 0, 7000, tracked=0, guests=())  # pages skipped before, of other guests, say nothing
    young = (empty, look(1, 0, 7000), look(2, 1, 7050))
    old = (*young, look(3, 2, 7550))
    late = (guest(), guest("late", pid=101))
    assert decide(*young).knobs.smart_scan == 1
    assert decide(*old).knobs.smart_scan == 0
    assert decide(*old, look(4, 3, 7550), look(5, 3, 7550, guests=late)).knobs.smart_scan == 0  # none in their turn
    assert decide(*young[1:]).knobs.smart_scan == 0  # nobody knows what was before


def test_settled_news_rests_with_smart_scan() -> None:
    decision = decide(*settled())
    assert decision.mode is Mode.REST
    assert decision.knobs.smart_scan == 1
    assert decision.next_tick_seconds == CONFIG.daemon.idle_tick_seconds
    assert "the last pass gained 0 B, where 5 CPU-s per GiB is the price" in decision.reason


def test_a_pass_that_ends_with_less_than_before_has_lost() -> None:
    first, second, last = settled()
    fewer = replace(last, counters=replace(last.counters, pages_sharing=40_000, pages_unshared=60_000))
    said = "the last pass lost 39.1 MiB, where 5 CPU-s per GiB is the price"
    assert said in [verdict.sentence for verdict in decide(first, second, fewer).verdicts]


def test_cheap_pages_do_not_make_a_cruise_run_into_dear_ones() -> None:
    """A pass takes 1 CPU-s for 500,000 pages. The merged pages after it take a tenth of that for each page."""
    counters = [
        Counters(full_scans=scans, pages_scanned=pages, pages_unshared=1000)
        for scans, pages in ((0, 0), (4, 500_000), (4, 1_000_000))
    ]
    at = ((0, 0.0), (10, 1.0), (20, 1.1))
    looks = [snapshot(at=at, counters=now, cpu_seconds=cpu) for now, (at, cpu) in zip(counters, at, strict=True)]
    before, after = decide(*looks[:2]), decide(*looks)
    assert (before.mode, after.mode) == (Mode.REST, Mode.REST)
    assert rate(after) == pytest.approx(rate(before), rel=0.1)


def test_a_kernel_that_tells_of_no_stalls_is_said_to() -> None:
    [said] = [one.sentence for one in decide(replace(snapshot(), pressure=None)).verdicts if one.rule == "need"]
    assert said == "need is calm: 62.5 % of memory available, it is not known how long tasks stalled on memory"


def test_need_raises_the_budget() -> None:
    calm = decide(snapshot())
    short = decide(snapshot(available_bytes=GIB))
    assert short.reason.startswith("boosting at 95 % of a core")
    assert rate(short) > rate(calm)


@pytest.mark.parametrize(("profile", "percent"), [("quiet", "20 %"), ("balanced", "60 %"), ("eager", "95 %")])
def test_profiles_differ_in_their_budget(profile: str, percent: str) -> None:
    config = Config(adaptive=Adaptive.model_validate({"profile": profile}))
    assert f"boosting at {percent} of a core" in decide(snapshot(), config=config).reason


def test_without_guests_it_is_off() -> None:
    decision = decide(snapshot(guests=()))
    assert (decision.mode, decision.rule, decision.knobs.run) == (Mode.OFF, "no_guests", 0)
    assert decision.reason == "off: no guest runs"


def test_ksmd_runs_on_until_it_has_cleared_away_what_ended_guests_left() -> None:
    decision = decide(snapshot(guests=(), counters=Counters(pages_shared=5, pages_sharing=10)))
    assert (decision.mode, decision.rule, decision.knobs.run) == (Mode.REST, "no_guests", 1)
    assert decide(snapshot(guests=(), counters=Counters(pages_shared=5))).mode is Mode.OFF


@pytest.mark.parametrize(
    ("window", "minute", "inside"),
    [
        ("00:00-24:00", 0, True),
        ("00:00-24:00", 1439, True),
        ("18:00-24:00", 1439, True),
        ("18:00-24:00", 0, False),
        ("08:00-18:00", 8 * 60, True),
        ("08:00-18:00", 18 * 60, False),
        ("22:00-06:00", 23 * 60, True),
        ("22:00-06:00", 5 * 60, True),
        ("22:00-06:00", 12 * 60, False),
    ],
)
def test_an_inhibit_window_is_off_in_local_time(window: str, minute: int, inside: bool) -> None:
    decision = decide(snapshot(local_minute_of_day=minute), config=guarded(inhibit=[window]))
    assert (decision.rule == "inhibit") is inside
    assert (decision.knobs.run == 0) is inside


def test_debt_beyond_its_limit_stops_merging() -> None:
    counters = Counters(pages_sharing=8 * GIB // 4096)
    seen = snapshot(counters=counters, available_bytes=4 * GIB)
    assert decide(seen).mode is Mode.BOOST  # no limit by default: overcommitting is what merging is for
    config = guarded(max_debt_percent=100)
    decision = decide(seen, config=config)
    assert (decision.mode, decision.rule, decision.knobs.run) == (Mode.REST, "debt", 1)
    assert "8 GiB" in decision.reason
    short = decide(replace(seen, memory=replace(seen.memory, available_bytes=GIB // 2)), config=config)
    assert rate(short) == pytest.approx(rate(decision))  # a trickle, though a cruise would be 100 times as fast


def test_what_ended_guests_left_in_the_counters_is_no_debt() -> None:
    counters = Counters(pages_sharing=8 * GIB // 4096)
    alive = replace(guest(), ksm=GuestKsm(merging_pages=GIB // 4096))
    seen = snapshot(counters=counters, available_bytes=4 * GIB, guests=(alive,))
    decision = decide(seen, config=guarded(max_debt_percent=100))
    assert (decision.mode, decision.rule) == (Mode.BOOST, "news")
    unknown = replace(seen, guests=(alive, guest("db", pid=101)))
    assert decide(unknown, config=guarded(max_debt_percent=100)).rule == "debt"


def test_net_loss_gives_the_bookkeeping_back_by_unmerging() -> None:
    counters = Counters(pages_unshared=500_000)
    lost = [snapshot(at=at, counters=replace(counters, full_scans=at)) for at in (0, 1, 2, 3, 61)]
    decision = decide(*lost)
    assert (decision.mode, decision.rule, decision.knobs.run) == (Mode.OFF, "net_loss", 2)
    no_room = [replace(each, memory=replace(each.memory, available_bytes=0)) for each in lost]
    assert decide(*no_room).knobs.run == 0


def test_what_is_on_its_way_is_not_judged_by_counters_that_only_a_scan_corrects() -> None:
    counters = Counters(pages_sharing=9 * GIB // 4096, pages_unshared=500_000, general_profit=-GIB)
    lost = [snapshot(at=at, counters=replace(counters, full_scans=at)) for at in (0, 1, 2, 3, 61)]
    assert decide(*lost).knobs.run == 2
    less = replace(lost[-1], memory=replace(lost[-1].memory, available_bytes=8 * GIB))
    assert decide(*lost, less).knobs.run == 0
    assert decide(*lost, replace(less, giving_back=True)).knobs.run == 2


def test_one_guest_without_room_keeps_nobody_else_from_getting_memory_back() -> None:
    full = replace(guest(), ksm=GuestKsm(merging_pages=1000), room_bytes=0)
    counters = Counters(pages_sharing=1000, pages_unshared=500_000)
    lost = [snapshot(at=at, counters=replace(counters, full_scans=at), guests=(full,)) for at in (0, 1, 2, 3, 61)]
    assert decide(*lost).knobs.run == 2


def test_a_copy_on_write_storm_ends_a_boost_but_not_the_scan() -> None:
    counters = Counters(pages_sharing=100_000)
    decision = decide(snapshot(at=0, counters=counters), snapshot(at=60, counters=counters, cow_ksm=90_000))
    assert (decision.mode, decision.rule, decision.knobs.run) == (Mode.REST, "cow_storm", 1)


def budgets(**percents: float) -> Config:
    """A configuration with the same shares of a core at any need."""
    tables = {
        f"{name}_percent": dict.fromkeys(("calm", "wary", "short", "critical"), of) for name, of in percents.items()
    }
    return Config.model_validate({"adaptive": {"balanced": Config().adaptive.balanced.model_dump() | tables}})


@pytest.mark.parametrize("available_gib", [0, 1, 3, 10])
def test_zero_percent_means_off(available_gib: int) -> None:
    never = budgets(boost=0, cruise=0)
    decision = decide(snapshot(available_bytes=available_gib * GIB), config=never)
    assert (decision.mode, decision.rule, decision.knobs.run) == (Mode.OFF, "budget", 0)
    assert decision.reason.startswith("off: adaptive.balanced.cruise_percent.")
    between_boosts = decide(*settled(available_bytes=available_gib * GIB), config=budgets(boost=60, cruise=0))
    assert between_boosts.knobs.run == 0


def test_a_guard_that_ends_a_boost_where_there_is_no_cruise_leaves_a_trickle() -> None:
    seen = snapshot(counters=Counters(pages_sharing=8 * GIB // 4096), available_bytes=4 * GIB)
    guards = guarded(max_debt_percent=100).adaptive.guards
    config = budgets(boost=60, cruise=0)
    config = config.model_copy(update={"adaptive": config.adaptive.model_copy(update={"guards": guards})})
    decision = decide(seen, config=config)
    assert (decision.mode, decision.rule, decision.knobs.run) == (Mode.REST, "debt", 1)
    assert rate(decision) == pytest.approx(rate(decide(seen, config=guarded(max_debt_percent=100))))


def test_without_a_boost_news_is_scanned_as_without_news() -> None:
    decision = decide(snapshot(), config=budgets(boost=0, cruise=0.2))
    assert decision.mode is Mode.CRUISE
    assert decision.next_tick_seconds == CONFIG.daemon.idle_tick_seconds
    assert "no boost, for adaptive.balanced.boost_percent.calm = 0" in decision.verdicts[1].sentence


@pytest.mark.parametrize(("key", "percent"), [("boost", 0.5), ("boost", 1e-6), ("boost", 101), ("cruise", 0.001)])
def test_a_boost_without_an_end_cannot_be_configured(key: str, percent: float) -> None:
    with pytest.raises(ValidationError):
        budgets(**({"boost": 60, "cruise": 1} | {key: percent}))


@pytest.mark.parametrize("window", ["00:00-00:00", "08:00-08:00", "24:00-06:00", "00:00-24:01", "08:00", "noon"])
def test_a_window_that_never_opens_is_refused(window: str) -> None:
    with pytest.raises(ValidationError):
        guarded(inhibit=[window])


def test_hands_off_while_somebody_else_writes() -> None:
    write = ForeignWrite(knob="sleep_millisecs", ours=20, seen=10)
    decision = decide(snapshot(foreign=(write,), suspects=("ksmtuned",)))
    assert (decision.mode, decision.rule, decision.knobs) == (Mode.HELD, "foreign_writer", Knobs())
    assert "ksmtuned" in decision.reason


def test_every_decision_tells_all_rules_and_what_would_change_it() -> None:
    for decision in (decide(snapshot()), decide(*settled()), decide(snapshot(guests=()))):
        rules = [verdict.rule for verdict in decision.verdicts]
        assert rules == [
            "need", "news", "yield", "plenty",
            "foreign_writer", "paused", "inhibit", "unswitched", "no_guests", "debt", "net_loss", "cow_storm", "busy",
        ]  # fmt: skip
        assert all(verdict.sentence for verdict in decision.verdicts)
        assert decision.would_change


COUNTERS = st.builds(
    Counters,
    pages_shared=st.integers(0, 10**6),
    pages_sharing=st.integers(0, 10**7),
    pages_unshared=st.integers(0, 10**7),
    full_scans=st.integers(0, 50),
    pages_scanned=st.none() | st.integers(0, 10**9),
    ksm_zero_pages=st.none() | st.integers(-5, 10**6),
    general_profit=st.none() | st.integers(-(10**9), 10**10),
)
SNAPSHOTS = st.builds(
    snapshot,
    at=st.floats(0, 10**5),
    available_bytes=st.integers(0, 16 * GIB),
    some_percent=st.floats(0, 100),
    full_percent=st.floats(0, 100),
    counters=COUNTERS,
    cpu_seconds=st.none() | st.floats(0, 10**5),
    cow_ksm=st.none() | st.integers(0, 10**9),
    guests=st.sampled_from([(), (guest(),), (guest(), guest("db", pid=101, rss_bytes=4 * GIB))]),
    woken_by=st.sampled_from([frozenset(), frozenset({Wake.PRESSURE}), frozenset({Wake.GUEST})]),
    foreign=st.sampled_from([(), (ForeignWrite(knob="run", ours=1, seen=0),)]),
    local_minute_of_day=st.integers(0, 1439),
)
HISTORIES = st.lists(SNAPSHOTS, min_size=1, max_size=8).map(
    lambda many: sorted(many, key=lambda each: each.clock.monotonic_seconds)
)


@given(HISTORIES)
def test_whatever_happens_the_knobs_are_sane_and_the_reason_is_said(history: list[Snapshot]) -> None:
    decision = decide(*history)
    knobs = decision.knobs
    assert decision.reason
    assert decision.rule
    assert 0 < decision.next_tick_seconds <= 10
    if knobs.run == 1:
        assert knobs.sleep_millisecs is not None
        assert knobs.sleep_millisecs >= 1  # 0 would spin a core
        assert knobs.pages_to_scan is not None
        assert 1 <= knobs.pages_to_scan <= 1_000_000
    assert decision.mode is not Mode.HELD or knobs == Knobs()


@given(HISTORIES)
def test_guards_only_lower(history: list[Snapshot]) -> None:
    free = decide(*history)
    strict = decide(
        *history, config=guarded(inhibit=["00:00-24:00"], max_debt_percent=1, cow_storm_percent_per_minute=1)
    )
    assert strict.knobs.run in (None, 0, 2) or rate(strict) <= rate(free) * 1.001


@given(HISTORIES)
def test_the_same_again_is_at_rest(history: list[Snapshot]) -> None:
    decision = decide(*history)
    seen = history[-1].knobs
    then: dict[str, Any] = dict(seen.items())
    then |= {name: value for name, value in decision.knobs.items() if seen.get(name) is not None}
    wanted = Knobs(**then)
    assert plan(wanted, decision.knobs) == ()


def rate(decision: Decision) -> float:
    """Pages per second of sleep."""
    knobs = decision.knobs
    return (knobs.pages_to_scan or 0) / (knobs.sleep_millisecs or 1)
