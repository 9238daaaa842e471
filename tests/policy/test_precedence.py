"""ksmd goes before guests when memory is critical, and never behind them; it is not boosted beside busy ones."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.config import Adaptive, Config, Daemon, Kernel, Policy
from ksmtuned_py.model import Counters, Decision, Knobs, Mode, Pause, Pressure, Run, Snapshot, Verdict, Wake
from ksmtuned_py.policy import decide
from ksmtuned_py.policy.need import Need
from ksmtuned_py.policy.precedence import BUSY_SECONDS, OLD_SECONDS, WAITED_PERCENT, Precedence
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import GIB
from tests.support.snapshots import CALM_STALL, snapshot

BY_NEED = Config(kernel=Kernel(ksmd_nice="need"))
EAGER = Config(kernel=Kernel(ksmd_nice="need"), adaptive=Adaptive(profile="eager"))
KEPT = Config(kernel=Kernel(ksmd_nice="keep"))
CAME_NICE = 5
FIRST_PASS = Counters(pages_volatile=1000)
PAUSE = Pause(until_unix_seconds=1e9, reason="backup")


def look(at: float, nice: int | None = CAME_NICE, available_gib: float = 10) -> Snapshot:
    knobs = Knobs(run=Run.MERGE, pages_to_scan=100, sleep_millisecs=20, ksmd_nice=nice)
    return snapshot(at=at, knobs=knobs, available_bytes=round(available_gib * GIB), counters=FIRST_PASS)


def beside(spare_cores: list[float], available_gib: float = 4, seconds: float = 1) -> list[Snapshot]:
    """Looks at a host whose guests leave so much of its CPUs, from one to the next. A guest came before the first."""
    idle = [100 + seconds * sum(spare_cores[:end]) for end in range(len(spare_cores) + 1)]
    stall = replace(CALM_STALL, avg10_percent=WAITED_PERCENT)
    return [
        replace(
            look(at * seconds, available_gib=available_gib),
            idle_seconds=each,
            scanner_cpu_seconds=0.0,
            cpu_pressure=Pressure(some=stall, full=stall),
        )
        for at, each in enumerate(idle)
    ]


def wanted(*looks: Snapshot, config: Config = BY_NEED) -> int | None:
    """The nice value wanted at the last of these looks."""
    trend = Trend.begin(config)
    for each in looks:
        trend = trend.after(each, config)
    return decide(looks[-1], trend, config).knobs.ksmd_nice


@pytest.mark.parametrize("config", [BY_NEED, EAGER])
@pytest.mark.parametrize("spare_cores", [2.0, 0.0])
def test_need_decides_and_ksmd_never_goes_behind_for_it_may_hold_a_guests_locks(
    spare_cores: float, config: Config
) -> None:
    seen = [beside([spare_cores], available_gib) for available_gib in (10, 4, 2, 0.5)]
    assert [wanted(*each, config=config) for each in seen] == [CAME_NICE, CAME_NICE, CAME_NICE, -5]


def test_without_being_asked_it_is_left_as_it_is() -> None:
    assert wanted(look(0), config=KEPT) is None
    assert wanted(look(0, None)) is None


def test_with_another_policy_it_is_as_it_came() -> None:
    fixed = Config(policy=Policy(name="fixed"))
    assert wanted(look(0, 7), config=fixed) == 7
    assert wanted(look(0, 7, available_gib=0.5), config=fixed) == 7


def test_ksmd_is_as_it_came_and_not_as_we_left_it() -> None:
    assert wanted(look(0, 7), look(1, -5, available_gib=2)) == 7
    assert wanted(look(0, -10), look(1, -5, available_gib=0.5)) == -10
    assert wanted(look(0, None), look(1, 3, available_gib=2)) == 3


def decided(*looks: Snapshot, config: Config = BY_NEED) -> Decision:
    """What is decided at the last of these looks, at the first of which a guest came."""
    trend = Trend.begin(config)
    for each in looks:
        trend = trend.after(each, config)
    return decide(looks[-1], trend, config)


def modes(looks: list[Snapshot], config: Config = BY_NEED) -> list[Mode]:
    """What is decided at each of these looks."""
    return [decided(*looks[:end], config=config).mode for end in range(1, len(looks) + 1)]


@pytest.mark.parametrize(
    ("available_gib", "config", "mode"),
    [
        (10, BY_NEED, Mode.REST),
        (4, BY_NEED, Mode.REST),
        (2, BY_NEED, Mode.BOOST),
        (0.5, BY_NEED, Mode.BOOST),
        (4, EAGER, Mode.BOOST),
        (4, KEPT, Mode.BOOST),
    ],
    ids=["calm", "wary", "short", "critical", "eager", "not asked for"],
)
def test_beside_busy_guests_there_is_no_boost_until_memory_is_short(
    available_gib: float, config: Config, mode: Mode
) -> None:
    assert decided(*beside([1], available_gib), config=config).mode is Mode.BOOST
    decision = decided(*beside([0.1], available_gib), config=config)
    assert decision.mode is mode
    assert (decision.rule == "busy") is (mode is Mode.REST)
    assert decision.knobs.run == Run.MERGE


def test_cpus_are_busy_when_they_have_less_to_spare_than_the_boost_would_take() -> None:
    share = BY_NEED.adaptive.chosen.boost_percent.wary / 100
    assert decided(*beside([share + 0.01])).mode is Mode.BOOST
    assert decided(*beside([share - 0.01])).rule == "busy"


def test_what_ksmd_takes_itself_is_to_spare() -> None:
    looks = [replace(each, scanner_cpu_seconds=0.9 * at) for at, each in enumerate(beside([0.1, 0.1, 0.1]))]
    assert modes(looks) == [Mode.REST, Mode.BOOST, Mode.BOOST, Mode.BOOST]


def test_no_boost_begins_before_it_is_known_what_cpus_have_to_spare() -> None:
    """A guest that has just come takes CPUs that were idle until then."""
    first, second = beside([2])
    assert decided(first).rule == "busy"
    assert "counted" in decided(first).reason
    assert decided(first).next_tick_seconds == BY_NEED.daemon.tick_seconds
    assert decided(first, second).mode is Mode.BOOST
    before, come, after = (
        replace(each, guests=each.guests if at else ())
        for at, each in enumerate(beside([2, 2], seconds=OLD_SECONDS + 1))
    )
    assert decided(before, come).rule == "busy"
    assert decided(before, come, after).mode is Mode.BOOST


def test_at_the_first_look_pressure_on_cpus_tells_whether_that_is_to_be_known() -> None:
    """Who looks once wants to be told what a daemon would do."""
    first, second = beside([0])
    assert decided(replace(first, cpu_pressure=None)).mode is Mode.BOOST
    calm = replace(first, cpu_pressure=Pressure(some=CALM_STALL, full=CALM_STALL))
    assert modes([calm, second]) == [Mode.BOOST, Mode.REST]


def test_while_guests_are_known_to_be_busy_or_memory_is_plenty_nothing_is_counted_sooner() -> None:
    busy = beside([0, 0], seconds=BY_NEED.daemon.idle_tick_seconds)
    assert decided(*busy).next_tick_seconds == BY_NEED.daemon.idle_tick_seconds
    for kept in (look(0, available_gib=15), replace(look(0, available_gib=4), pause=PAUSE)):
        usual = decided(kept).next_tick_seconds
        assert decided(replace(kept, idle_seconds=1.0)).next_tick_seconds == usual


def test_where_that_cannot_be_known_guests_do_not_go_first() -> None:
    looks = beside([0, 0])
    assert modes([replace(each, idle_seconds=None) for each in looks]) == [Mode.BOOST] * 3
    assert modes([replace(each, scanner_cpu_seconds=None) for each in looks]) == [Mode.BOOST] * 3


def test_busy_guests_go_first_for_ten_seconds_more_and_the_boost_is_not_forgotten() -> None:
    looks = beside([0, *[2.0] * round(BUSY_SECONDS)])
    assert modes(looks)[1:] == [Mode.REST] * round(BUSY_SECONDS) + [Mode.BOOST]


@pytest.mark.parametrize("seconds", [OLD_SECONDS + 1, 30, 3600])
def test_where_looks_are_far_apart_they_are_counted_once_and_no_more(seconds: float) -> None:
    config = Config(kernel=Kernel(ksmd_nice="need"), daemon=Daemon(tick_seconds=seconds, idle_tick_seconds=seconds))
    assert modes(beside([2, 2, 2], seconds=seconds), config) == [Mode.REST] + [Mode.BOOST] * 3
    late = beside([2, 2, 2])
    late[3] = replace(late[3], clock=replace(late[3].clock, monotonic_seconds=2 + seconds), idle_seconds=500 + seconds)
    assert modes(late) == [Mode.REST] + [Mode.BOOST] * 3


def test_a_boost_that_waits_for_hours_is_heard_as_before() -> None:
    """What a boost brought is judged by the time that it took."""
    trend = Trend.begin(BY_NEED)
    for each in beside([0.0] * 400, seconds=10):
        trend = trend.after(each, BY_NEED)
    assert trend.boosting
    assert trend.previous is not None
    assert trend.news.boost.since_seconds == trend.previous.clock.monotonic_seconds


def test_it_is_said_what_cpus_lack_and_what_would_change_it() -> None:
    looks = beside([0.25, 64, 64])
    held = decided(*looks[:3])
    assert "they had 0.25 cores to spare, and a boost takes 0.8" in held.reason
    assert held.would_change[0] == "boost: CPUs with 0.8 cores to spare for 10 s"
    assert verdict(decided(*beside([64])), "busy").sentence == "CPUs have 64 cores to spare"


def verdict(decision: Decision, rule: str) -> Verdict:
    return next(each for each in decision.verdicts if each.rule == rule)


def test_ticks_in_quick_succession_are_not_judged_by_a_few_hundredths_of_a_second() -> None:
    looks = beside([2, 0, 2])
    hasty = replace(looks[2], clock=replace(looks[2].clock, monotonic_seconds=1.01))
    assert decided(*looks[:2], hasty).mode is Mode.BOOST


def test_a_count_that_runs_backwards_is_no_gift() -> None:
    """The kernel's sum falls when a CPU is taken out."""
    looks = beside([2, 2])
    assert decided(looks[0], replace(looks[1], idle_seconds=5.0)).rule == "busy"


def test_a_boost_that_took_the_host_out_of_need_goes_on_beside_busy_guests() -> None:
    memory = [look(0, available_gib=each).memory for each in (2, 4, 10)]
    looks = [replace(each, memory=seen) for each, seen in zip(beside([0, 0]), memory, strict=True)]
    assert modes(looks) == [Mode.BOOST] * 3


def test_a_single_stall_lets_no_boost_begin_beside_busy_guests_for_a_boost_makes_such_stalls() -> None:
    for available_gib in (2.9, 4):  # the first is too little to leave a shortage
        looks = beside([0, 0, 0], available_gib)
        looks[2] = replace(looks[2], woken_by=frozenset({Wake.PRESSURE}), pressure=snapshot(some_percent=3).pressure)
        assert modes(looks)[1:] == [Mode.REST] * 3


def test_stalls_that_last_do_but_give_it_no_leave_to_go_on() -> None:
    looks = beside([0, 0, 0])
    looks[2] = replace(looks[2], pressure=snapshot(some_percent=50).pressure)
    assert modes(looks)[1:] == [Mode.REST, Mode.BOOST, Mode.REST]


def test_where_no_boost_is_wanted_busy_guests_change_nothing() -> None:
    assert decided(*(replace(each, guests=()) for each in beside([0]))).rule == "no_guests"


@given(st.integers(-20, 19), st.sampled_from([BY_NEED, EAGER]))
def test_more_need_never_puts_ksmd_behind_and_no_value_is_of_a_realtime_class(came: int, config: Config) -> None:
    precedence = Precedence(found_nice=came)
    nices = [precedence.nice(need, config) for need in Need]
    assert nices == sorted(nices, key=lambda nice: -(nice or 0))
    assert all(nice is not None and -20 <= nice <= came for nice in nices)


def cpus(available_gib: float, config: Config, found: str | None = "0-7") -> str | None:
    """The CPUs wanted with so much memory available."""
    seen = look(0, available_gib=available_gib)
    seen = replace(seen, knobs=replace(seen.knobs, ksmd_cpus=found))
    return decide(seen, Trend.begin(config).after(seen, config), config).knobs.ksmd_cpus


def test_its_cpus_are_those_it_was_given_until_memory_is_critical() -> None:
    housekeeping = Config(kernel=Kernel(ksmd_cpus="0-1"))
    assert [cpus(available, housekeeping) for available in (10, 4, 2, 0.5)] == ["0-1", "0-1", "0-1", "0-7"]
    assert cpus(10, Config()) is None
    assert cpus(10, housekeeping, None) is None


def test_hands_off_and_a_pause_leave_it_alone() -> None:
    assert Trend.begin(BY_NEED).precedence.nice(Need.CRITICAL, BY_NEED) is None
