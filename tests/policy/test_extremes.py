"""What is said with a chance holds for any values within the record, and is wider the less was seen beyond it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.policy.extremes import Worst

records = st.lists(st.integers(0, 2**40), min_size=7, max_size=30)


def limit_at(worst: Worst, chance: float, most: float = 1e6) -> float:
    """The limit that is exceeded with that chance."""
    least = 0.0
    for _ in range(60):
        middle = (least + most) / 2
        least, most = (middle, most) if worst.chance(middle) > chance else (least, middle)
    return most


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_next_is_among_the_worst_with_the_chance_of_their_rank(rank: int) -> None:
    worst = Worst([7.0, 1, 9, 3, 2, 8, 4, 6, 5], 0.01)
    assert worst.chance(10 - rank) == pytest.approx(rank / 10)


@given(records, st.lists(st.integers(0, 2**41), min_size=2, max_size=2))
def test_more_room_is_never_a_greater_chance(record: list[int], limits: list[int]) -> None:
    worst = Worst(record, 1.0)
    low, high = sorted(limits)
    assert 0 <= worst.chance(high) <= worst.chance(low) <= 1
    assert worst.chance(low) <= worst.chance(low, times=4)


@given(records, st.integers(0, 2**41))
def test_units_do_not_matter(record: list[int], limit: int) -> None:
    kib, pages = Worst(record, 1.0), Worst([value / 4 for value in record], 0.25)
    assert kib.chance(limit) == pytest.approx(pages.chance(limit / 4), rel=1e-6)


def test_a_short_record_is_trusted_less() -> None:
    random_numbers = random.Random(1)
    long = [random_numbers.expovariate(1) for _ in range(200)]
    short = sorted(long)[::25]
    assert limit_at(Worst(short, 0.01), 0.01) > limit_at(Worst(long, 0.01), 0.01)


def test_rare_large_values_reach_further_than_even_ones() -> None:
    even = [100 + number for number in range(20)]
    rare = [*even[:-1], 200]
    assert Worst(rare, 1).chance(300) > 10 * Worst(even, 1).chance(300)


def test_a_record_without_any_difference_has_a_margin_all_the_same() -> None:
    assert 0.001 < Worst([100.0] * 10, 1.0).chance(101) < 0.1
    assert Worst([100.0] * 10, 1.0).chance(200) < 1e-4
