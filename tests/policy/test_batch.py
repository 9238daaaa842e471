"""A budget becomes a batch and a sleep that spend it, and never a batch that hogs the core."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.policy.batch import (
    BATCH_MAX_SECONDS,
    BATCH_SECONDS,
    DEAREST_BATCH,
    DEFAULT_COST_SECONDS,
    HIGH_BUDGET,
    MOST_BEYOND,
    PAGES_MAX,
    batch_for,
)

COSTS = st.floats(0.05e-6, 20e-6)
OVERSLEEPS = st.floats(0, 0.02)


@given(st.floats(0, 1), COSTS, OVERSLEEPS)
def test_a_batch_is_short_and_sleeps(budget: float, cost: float, oversleep: float) -> None:
    batch = batch_for(budget, cost, oversleep)
    longest = DEAREST_BATCH * BATCH_MAX_SECONDS if budget > HIGH_BUDGET else BATCH_SECONDS
    assert batch.pages_to_scan * cost <= longest + cost
    assert 1 <= batch.pages_to_scan <= PAGES_MAX
    assert batch.sleep_millisecs >= 1


@given(st.floats(0.001, 0.7), COSTS, st.floats(0, 0.005))
def test_it_spends_the_budget_within_a_tenth(budget: float, cost: float, oversleep: float) -> None:
    batch = batch_for(budget, cost, oversleep)
    busy = batch.pages_to_scan * cost
    share = busy / (busy + batch.sleep_millisecs / 1000 + oversleep)
    assert share == pytest.approx(budget, rel=0.1)


@given(st.floats(0.0001, 0.98), COSTS, OVERSLEEPS)
def test_it_never_spends_more_than_the_budget(budget: float, cost: float, oversleep: float) -> None:
    """Where all pages are dear, as on a slow machine, a high budget is exceeded by a little, and always so."""
    batch = batch_for(budget, cost, oversleep)
    busy = batch.pages_to_scan * cost
    share = busy / (busy + batch.sleep_millisecs / 1000 + oversleep)
    beyond = MOST_BEYOND if budget > HIGH_BUDGET else 0
    assert share <= budget * 1.05 + beyond or batch.pages_to_scan <= 10  # a page is the least there is


@pytest.mark.parametrize("budget", [0.71, 0.8, 0.9])
def test_a_machine_on_which_all_pages_are_dear_spends_no_more_than_another(budget: float) -> None:
    batch = batch_for(budget, 4e-6, 0.003)
    busy = batch.pages_to_scan * 4e-6
    assert busy / (busy + batch.sleep_millisecs / 1000 + 0.003) <= budget + 1.01 * MOST_BEYOND


def test_large_pages_are_not_dear_for_costing_more() -> None:
    usual = 16 * DEFAULT_COST_SECONDS
    batch = batch_for(0.95, usual, 0.003, usual)
    assert batch.pages_to_scan * usual == pytest.approx(batch_for(0.95, 0.9e-6, 0.003).pages_to_scan * 0.9e-6, rel=0.01)


def test_a_high_budget_sleeps_a_jiffy_or_two_between_long_batches() -> None:
    batch = batch_for(0.95, 0.9e-6, 0.003)
    assert batch.sleep_millisecs <= 2
    assert 0.9 * BATCH_MAX_SECONDS <= batch.pages_to_scan * 0.9e-6 <= BATCH_MAX_SECONDS


@given(st.floats(HIGH_BUDGET, 0.98, exclude_min=True), st.floats(0.05e-6, DEFAULT_COST_SECONDS), OVERSLEEPS)
def test_a_high_budget_is_kept_at_the_usual_cost(budget: float, cost: float, oversleep: float) -> None:
    batch = batch_for(budget, cost, oversleep)
    busy = batch.pages_to_scan * cost
    assert busy / (busy + batch.sleep_millisecs / 1000 + oversleep) <= budget * 1.05


@given(st.floats(HIGH_BUDGET, 0.98, exclude_min=True), COSTS, OVERSLEEPS)
def test_where_pages_are_dear_it_leaves_two_fifths_of_what_it_would(
    budget: float, cost: float, oversleep: float
) -> None:
    batch = batch_for(budget, cost, oversleep)
    rest = batch.sleep_millisecs / 1000 + oversleep
    assert rest / batch.pages_to_scan / cost >= (1 - budget) / budget / DEAREST_BATCH * 0.99


def test_a_batch_of_dear_pages_is_long_enough_for_cheap_ones() -> None:
    dear, usual = (batch_for(0.95, cost, 0.004).pages_to_scan for cost in (4e-6, 0.9e-6))
    assert dear * 0.9e-6 >= 0.4 * usual * 0.9e-6
    assert dear * 4e-6 <= DEAREST_BATCH * BATCH_MAX_SECONDS
