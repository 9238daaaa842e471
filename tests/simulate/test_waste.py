"""On the model, foreign stalls and swings do not cost CPU for ever, and a guard lets go."""

import pytest

from ksmtuned_py.config import Adaptive, Config, Guards
from ksmtuned_py.model import Mode
from ksmtuned_py.simulate.run import SimulatedRun, simulate
from ksmtuned_py.simulate.scenario import Scenario, parse_scenario

EAGER = Config(adaptive=Adaptive(profile="eager"))
HOST = 'title = "t"\nseconds = {seconds}\n[host]\ntotal_gib = {gib}\n{host}\n[[guests]]\nname = "g"\n{guests}\n'


def scenario(seconds: int, gib: int, guests: str, host: str = "") -> Scenario:
    return parse_scenario("test", HOST.format(seconds=seconds, gib=gib, guests=guests, host=host))


def run(scenario: Scenario, config: Config | None = None) -> SimulatedRun:
    return simulate(scenario, config or Config(), "adaptive")


def cpu_share(told: SimulatedRun, since_seconds: float) -> float:
    later = [sample for sample in told.samples if sample.seconds >= since_seconds]
    return (later[-1].cpu_seconds - later[0].cpu_seconds) / (later[-1].seconds - later[0].seconds)


@pytest.mark.parametrize("every_seconds", [12, 60, 600])
def test_stalls_cost_nothing_where_memory_is_plenty(every_seconds: int) -> None:
    told = run(scenario(2400, 40, "count = 4\nmemory_gib = 1", f"stall_every_seconds = {every_seconds}"))
    boosts = [sample.seconds for sample in told.samples if sample.mode is Mode.BOOST]
    assert max(boosts) < 60  # the guests' arrival is the only one
    assert cpu_share(told, 600) < 0.005


@pytest.mark.parametrize("swing_seconds", [600, 3600])
def test_memory_that_swings_costs_half_a_percent_of_a_core(swing_seconds: int) -> None:
    guests = f"count = 4\nchanging_percent = 0\nequal_percent = 40\nswing_percent = 40\nswing_seconds = {swing_seconds}"
    told = run(scenario(14_400, 40, guests))
    assert cpu_share(told, 7200) < 0.005


def test_guests_that_end_before_they_can_merge_cost_little() -> None:
    """Four live for three passes of a boost, one after another and for ever, beside some that are merged for long."""
    staying = "count = 8\nmemory_gib = 2\nequal_percent = 60"
    leaving = "count = 4\nmemory_gib = 2\nfirst_seconds = 60\nevery_seconds = 3\nlifetime_seconds = 12"
    told = run(scenario(14_400, 64, f'{staying}\n[[guests]]\nname = "leaving"\n{leaving}'))
    assert cpu_share(told, 7200) < 0.02


def test_memory_that_always_changes_costs_little_whoever_comes_and_goes() -> None:
    changing = "equal_percent = 0\nzero_percent = 0\nchanging_percent = 100\nrewrites_per_second = 5"
    staying = f"count = 4\nmemory_gib = 0.5\n{changing}"
    leaving = f"count = 10\nmemory_gib = 0.05\nevery_seconds = 2\nlifetime_seconds = 20\n{changing}"
    told = run(scenario(1800, 64, f'{staying}\n[[guests]]\nname = "leaving"\n{leaving}'))
    assert cpu_share(told, 900) < 0.02


def test_the_debt_guard_lets_go_when_its_guests_are_gone() -> None:
    """After an hour all guests are replaced. The merged pages of the first ones stay counted until a scan."""
    guests = "count = 12\nmemory_gib = 2\nevery_seconds = 300\nlifetime_seconds = 3600\nrewrites_per_second = 0.01"
    told = run(scenario(14_400, 24, guests), Config(adaptive=Adaptive(guards=Guards(max_debt_percent=100))))
    assert any(sample.mode is Mode.REST for sample in told.samples)
    last = told.samples[-1]
    assert last.saved_bytes < 2 * last.achievable_bytes
    assert not any(sample.mode is Mode.OFF for sample in told.samples)


@pytest.mark.parametrize("seconds", [*range(4, 40, 3), 60, 300, 1200])
def test_a_twin_is_merged_whenever_it_comes(seconds: int) -> None:
    """smart_scan begins to pass over the first guest's pages just then, or has for long."""
    twins = f"count = 2\nmemory_gib = 0.5\nequal_percent = 80\nchanging_percent = 0\nevery_seconds = {seconds}"
    last = run(scenario(seconds + 30, 5, f"zero_percent = 0\n{twins}"), EAGER).samples[-1]
    assert last.saved_bytes > 0.95 * last.achievable_bytes
