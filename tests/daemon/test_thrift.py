"""Ticks take a small share of a core in the long run, at any cost of a look, and are quick while memory is short."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.daemon.thrift import BURST_CPU_SECONDS, PAUSE_MAX_SECONDS, SHARE, Thrift
from ksmtuned_py.policy.need import Need


def pauses(cpu_seconds: float, ticks: int, need: Need = Need.CALM) -> list[float]:
    """Returns the time after each of so many ticks that take so much CPU, at a second between them or more."""
    thrift, now, found = Thrift(), 0.0, []
    for _ in range(ticks):
        found.append(max(1.0, thrift.pause_after(cpu_seconds, need, now)))
        now += found[-1]
    return found


@given(st.floats(0, SHARE * PAUSE_MAX_SECONDS))
def test_in_the_long_run_ticks_take_their_share_at_most(cpu_seconds: float) -> None:
    found = pauses(cpu_seconds, 1000)
    assert cpu_seconds * len(found) <= SHARE * sum(found) + BURST_CPU_SECONDS + 1e-6
    assert max(found) <= PAUSE_MAX_SECONDS + 1e-6


@pytest.mark.parametrize(
    ("cpu_seconds", "first", "last"), [(0.002, 1.0, 1.0), (0.025, 1.0, 2.0), (60.0, PAUSE_MAX_SECONDS, 10.0)]
)
def test_only_dear_ticks_come_less_often_and_not_at_once(cpu_seconds: float, first: float, last: float) -> None:
    found = pauses(cpu_seconds, 100)
    assert found[0] == pytest.approx(first)
    assert found[-1] == pytest.approx(last)


def test_while_memory_is_short_a_tick_may_cost_anything() -> None:
    assert set(pauses(60.0, 10, Need.SHORT)) == {1.0}
