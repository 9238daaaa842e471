"""A state of need is entered at one threshold, left at another, and raised by stalls."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.config import Need as Thresholds
from ksmtuned_py.model import Memory, Wake
from ksmtuned_py.policy.need import Need, next_need
from ksmtuned_py.units import GIB
from tests.support.snapshots import snapshot

THRESHOLDS = Thresholds()


def need_at(available_percent: float, previous: Need = Need.CALM, **fields: Any) -> Need:
    seen = snapshot(available_bytes=int(100 * GIB * available_percent / 100), total_bytes=100 * GIB, **fields)
    return next_need(previous, seen, THRESHOLDS)


@pytest.mark.parametrize(
    ("percent", "need"),
    [(90, Need.CALM), (31, Need.CALM), (29, Need.WARY), (14, Need.SHORT), (4, Need.CRITICAL), (0, Need.CRITICAL)],
)
def test_less_memory_means_more_need(percent: float, need: Need) -> None:
    assert need_at(percent) is need


@pytest.mark.parametrize(("previous", "percent"), [(Need.WARY, 33), (Need.SHORT, 18), (Need.CRITICAL, 7)])
def test_a_state_is_not_left_where_it_is_entered(previous: Need, percent: float) -> None:
    assert need_at(percent, previous) is previous
    assert need_at(percent, Need.CALM) < previous


def test_stalls_raise_need_once_memory_is_wary() -> None:
    assert need_at(29, some_percent=6) is Need.SHORT
    assert need_at(29, some_percent=20, full_percent=12) is Need.CRITICAL
    assert need_at(33, Need.SHORT, some_percent=3) is Need.SHORT
    assert need_at(33, Need.SHORT, some_percent=2) is Need.WARY


def test_a_pressure_trigger_means_short_at_once_where_memory_is_wary() -> None:
    assert need_at(29, woken_by=frozenset({Wake.PRESSURE})) is Need.SHORT


@given(st.floats(35, 100), st.sampled_from(Need), st.floats(0, 100), st.sampled_from([frozenset(), {Wake.PRESSURE}]))
def test_stalls_within_the_limit_of_a_cgroup_are_no_need_of_a_host_with_memory_to_spare(
    available: float, previous: Need, stalled: float, woken_by: frozenset[Wake]
) -> None:
    seen = need_at(available, previous, some_percent=stalled, full_percent=stalled, woken_by=woken_by)
    assert seen is Need.CALM


def test_without_psi_memory_alone_counts() -> None:
    assert next_need(Need.CALM, snapshot(pressure=None), THRESHOLDS) is Need.CALM


@given(st.sampled_from(Need), st.floats(0, 100), st.floats(0, 100))
def test_need_never_falls_when_memory_does(previous: Need, one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert need_at(less, previous) >= need_at(more, previous)


def with_swap(free_gib: float, total_gib: float = 64, available_gib: float = 50, previous: Need = Need.CALM) -> Need:
    memory = Memory(
        total_bytes=100 * GIB,
        available_bytes=round(available_gib * GIB),
        swap_total_bytes=round(total_gib * GIB),
        swap_free_bytes=round(free_gib * GIB),
    )
    return next_need(previous, snapshot(memory=memory), THRESHOLDS)


@pytest.mark.parametrize(
    ("free_gib", "total_gib", "previous", "need"),
    [
        (4, 64, Need.CALM, Need.WARY),
        (10, 64, Need.CALM, Need.CALM),  # 16 % are left
        (10, 64, Need.WARY, Need.WARY),
        (14, 64, Need.WARY, Need.CALM),
        (0, 2, Need.CALM, Need.CALM),  # swap is full for good, of what nobody needs
        (0, 50, Need.CALM, Need.CALM),  # all swapped memory would fit
        (0, 51, Need.CALM, Need.WARY),
        (0, 45, Need.WARY, Need.WARY),
        (0, 0, Need.CALM, Need.CALM),
    ],
)
def test_swap_that_runs_out_makes_wary(free_gib: float, total_gib: float, previous: Need, need: Need) -> None:
    assert with_swap(free_gib, total_gib, previous=previous) is need


def test_swap_alone_is_no_more_than_that_but_stalls_count_then() -> None:
    full = Memory(total_bytes=100 * GIB, available_bytes=50 * GIB, swap_total_bytes=64 * GIB, swap_free_bytes=2 * GIB)
    assert next_need(Need.CALM, snapshot(memory=full, some_percent=6), THRESHOLDS) is Need.SHORT


@given(st.sampled_from(Need), st.floats(0, 64), st.floats(0, 64), st.floats(0, 100))
def test_need_never_falls_when_swap_does(previous: Need, one: float, other: float, available: float) -> None:
    less, more = sorted((one, other))
    assert with_swap(less, available_gib=available, previous=previous) >= with_swap(
        more, available_gib=available, previous=previous
    )
