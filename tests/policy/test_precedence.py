"""ksmd goes before guests when memory is critical, and never behind them; it is not boosted beside busy ones."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.config import Adaptive, Config, Kernel, Policy
from ksmtuned_py.model import Counters, Decision, Knobs, Mode, Pressure, Run, Snapshot, Wake
from ksmtuned_py.policy import decide
from ksmtuned_py.policy.need import Need
from ksmtuned_py.policy.precedence import BUSY_SECONDS, Precedence
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import GIB
from tests.support.snapshots import CALM_STALL, snapshot

BY_NEED = Config(kernel=Kernel(ksmd_nice="need"))
EAGER = Config(kernel=Kernel(ksmd_nice="need"), adaptive=Adaptive(profile="eager"))
KEPT = Config(kernel=Kernel(ksmd_nice="keep"))
CAME_NICE = 5
FIRST_PASS = Counters(pages_volatile=1000)


def busy(percent: float) -> Pressure:
    """So much of 10 s some task waited for a CPU."""
    return Pressure(some=replace(CALM_STALL, avg10_percent=percent), full=CALM_STALL)


def look(at: float, nice: int | None = CAME_NICE, waiting_percent: float = 0, available_gib: float = 10) -> Snapshot:
    knobs = Knobs(run=Run.MERGE, pages_to_scan=100, sleep_millisecs=20, ksmd_nice=nice)
    pressure = busy(waiting_percent)
    return snapshot(at=at, knobs=knobs, cpu_pressure=pressure, available_bytes=round(available_gib * GIB))


def wanted(*looks: Snapshot, config: Config = BY_NEED) -> int | None:
    """The nice value wanted at the last of these looks."""
    trend = Trend.begin(config)
    for each in looks:
        trend = trend.after(each, config)
    return decide(looks[-1], trend, config).knobs.ksmd_nice


@pytest.mark.parametrize("config", [BY_NEED, EAGER])
@pytest.mark.parametrize("waiting_percent", [0, 90])
def test_need_decides_and_ksmd_never_goes_behind_for_it_may_hold_a_guests_locks(
    waiting_percent: float, config: Config
) -> None:
    seen = [look(0, CAME_NICE, waiting_percent, available_gib) for available_gib in (10, 4, 2, 0.5)]
    assert [wanted(each, config=config) for each in seen] == [CAME_NICE, CAME_NICE, CAME_NICE, -5]


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
    assert decided(look(0, waiting_percent=19, available_gib=available_gib), config=config).mode is Mode.BOOST
    decision = decided(look(0, waiting_percent=90, available_gib=available_gib), config=config)
    assert decision.mode is mode
    assert (decision.rule == "busy") is (mode is Mode.REST)
    assert decision.knobs.run == Run.MERGE


def test_busy_guests_are_told_of_once_a_minute_at_most_and_the_boost_is_not_forgotten() -> None:
    """Without the boost fewer tasks wait for a CPU."""
    waits = [(0, 20), (1, 0), (BUSY_SECONDS - 1, 0), (BUSY_SECONDS, 0)]
    looks = [replace(look(at, CAME_NICE, percent), counters=FIRST_PASS) for at, percent in waits]
    modes = [decided(*looks[:end]).mode for end in range(1, len(looks) + 1)]
    assert modes == [Mode.REST, Mode.REST, Mode.REST, Mode.BOOST]


def test_a_boost_that_took_the_host_out_of_need_goes_on_beside_busy_guests() -> None:
    looks = [replace(look(at, CAME_NICE, 90, gib), counters=FIRST_PASS) for at, gib in ((0, 2), (1, 4), (2, 10))]
    assert [decided(*looks[:end]).mode for end in (1, 2, 3)] == [Mode.BOOST] * 3


def test_a_stall_alone_gives_no_boost_leave_to_go_on_beside_busy_guests() -> None:
    """The boost itself makes such stalls."""
    looks = [replace(look(at, CAME_NICE, 90, 4), counters=FIRST_PASS) for at in range(3)]
    looks[1] = replace(looks[1], woken_by=frozenset({Wake.PRESSURE}))
    assert [decided(*looks[:end]).mode for end in (1, 2, 3)] == [Mode.REST, Mode.BOOST, Mode.REST]


def test_where_no_boost_is_wanted_busy_guests_change_nothing() -> None:
    idle = replace(look(0, waiting_percent=90), guests=())
    assert decided(idle).rule == "no_guests"


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
