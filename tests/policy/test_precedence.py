"""ksmd goes behind the guests while memory is plenty, before them when it is critical, and else as it came."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.config import Adaptive, Config, Kernel, Policy
from ksmtuned_py.model import IDLE_NICE, Knobs, Pressure, Run, Snapshot
from ksmtuned_py.policy import decide
from ksmtuned_py.policy.need import Need
from ksmtuned_py.policy.precedence import Precedence
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import GIB
from tests.support.snapshots import CALM_STALL, snapshot

BY_NEED = Config(kernel=Kernel(ksmd_nice="need"))
EAGER = Config(kernel=Kernel(ksmd_nice="need"), adaptive=Adaptive(profile="eager"))
CAME_NICE = 5


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


@pytest.mark.parametrize(
    ("available_gib", "waiting_percent", "nice", "eager_nice"),
    [
        (10, 0, IDLE_NICE, CAME_NICE),
        (4, 0, CAME_NICE, CAME_NICE),
        (4, 90, 19, CAME_NICE),
        (2, 90, CAME_NICE, CAME_NICE),
        (0.5, 90, -5, -5),
    ],
    ids=["calm", "wary", "wary and busy", "short", "critical"],
)
def test_need_decides(available_gib: float, waiting_percent: float, nice: int, eager_nice: int) -> None:
    seen = look(0, CAME_NICE, waiting_percent, available_gib)
    assert wanted(seen) == nice
    assert wanted(seen, config=EAGER) == eager_nice


def test_without_being_asked_it_is_left_as_it_is() -> None:
    assert wanted(look(0), config=Config(kernel=Kernel(ksmd_nice="keep"))) is None
    assert wanted(look(0, None)) is None


def test_with_another_policy_it_is_as_it_came() -> None:
    fixed = Config(policy=Policy(name="fixed"))
    assert wanted(look(0, 7), config=fixed) == 7
    assert wanted(look(0, 7, available_gib=0.5), config=fixed) == 7


def test_ksmd_is_as_it_came_and_not_as_we_left_it() -> None:
    assert wanted(look(0, 7), look(1, IDLE_NICE, available_gib=2)) == 7
    assert wanted(look(0, -10), look(1, IDLE_NICE, available_gib=0.5)) == -10
    assert wanted(look(0, None), look(1, 3, available_gib=2)) == 3


def test_a_host_is_busy_until_half_of_the_waiting_is_over() -> None:
    waits = [look(at, 5, percent, available_gib=4) for at, percent in enumerate((19, 21, 11, 9, 19))]
    assert [wanted(*waits[:end]) for end in range(1, 6)] == [5, 19, 19, 5, 5]


@given(st.integers(-20, 20), st.booleans(), st.sampled_from([BY_NEED, EAGER]))
def test_more_need_never_puts_ksmd_behind_and_no_value_is_of_a_realtime_class(
    came: int, is_busy: bool, config: Config
) -> None:
    precedence = Precedence(found_nice=came, is_busy=is_busy)
    nices = [precedence.nice(need, config) for need in Need]
    assert nices == sorted(nices, key=lambda nice: -(nice or 0))
    assert all(nice is not None and -20 <= nice <= IDLE_NICE for nice in nices)


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
