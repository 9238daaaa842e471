"""The frontier of huge pages is what its arithmetic says, and no better than the best possible."""

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bench.frontier import Contents, curves, dearest_first, gains, huge_share, mergeable_pages
from bench.servers import PASSES, is_merged, longest_gap

RANGES = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=5), min_size=1, max_size=5)
WAYS = ("best", "densest")


def ranges_of(numbers: list[list[int]]) -> list[Contents]:
    return [np.array(each, np.uint64) for each in numbers]


def gained(kept: tuple[list[int], ...]) -> int:
    """Returns what merging these ranges gains."""
    pages = [page for each in kept for page in each]
    return len(pages) - len(set(pages))


def test_a_page_can_be_merged_when_its_content_is_there_twice_also_in_one_range() -> None:
    assert mergeable_pages(ranges_of([[1, 1, 2], [3, 4], [4, 5]])).tolist() == [2, 1, 1]


def test_the_last_copy_of_a_content_gains_nothing() -> None:
    ranges = ranges_of([[7, 7], [7, 1]])
    assert gains(ranges, np.array([0, 1])).tolist() == [0, 1, 2]
    assert gains(ranges, np.array([1, 0])).tolist() == [0, 0, 2]


def test_a_range_is_cheap_once_the_copies_of_its_pages_are_given_back() -> None:
    """The first has the most pages that could be merged, but gains little without the second."""
    ranges = ranges_of([[1, 2, 7, 7], [1, 2], [4, 5, 6], [4, 5, 6]])
    assert dearest_first(ranges).tolist()[2:] == [0, 1]
    assert huge_share(curves(ranges)["best"], 3) == 0.5
    assert huge_share(curves(ranges)["densest"], 3) == 0.25


@given(RANGES)
def test_every_way_begins_with_nothing_and_ends_with_everything(numbers: list[list[int]]) -> None:
    for curve in curves(ranges_of(numbers)).values():
        assert curve[0] == 0
        assert curve[-1] == gained(tuple(numbers))
        assert (np.diff(curve) >= 0).all()
        assert len(curve) == len(numbers) + 1


@given(RANGES)
def test_no_way_is_better_than_the_best_of_all(numbers: list[list[int]]) -> None:
    found = curves(ranges_of(numbers))
    for wanted in range(gained(tuple(numbers)) + 1):
        fewest = next(
            size
            for size in range(len(numbers) + 1)
            if max(map(gained, combinations(numbers, size)), default=0) >= wanted
        )
        for way in WAYS:
            assert huge_share(found[way], wanted) <= 1 - fewest / len(numbers)


@given(RANGES, st.data())
def test_each_step_gives_back_what_costs_least(numbers: list[list[int]], data: st.DataObject) -> None:
    order = dearest_first(ranges_of(numbers)).tolist()
    size = data.draw(st.integers(1, len(order)))
    kept = [numbers[number] for number in order[:size]]
    least = max(gained((*kept[:place], *kept[place + 1 :])) for place in range(size))
    assert gained(tuple(kept[:-1])) == least


def test_a_share_for_more_than_all_is_none() -> None:
    assert huge_share(np.array([0, 5, 6]), 7) == 0
    assert huge_share(np.array([0, 5, 6]), 6) == 0
    assert huge_share(np.array([0, 5, 6]), 5) == 0.5
    assert huge_share(np.array([0, 5, 6]), 0) == 1


def test_the_longest_gap_is_between_neighbours() -> None:
    assert longest_gap([1.0, 1.5, 3.5, 4.0]) == 2.0
    assert longest_gap([1.0]) == 0.0


def test_merging_is_at_its_end_when_nothing_came_and_nothing_waits() -> None:
    still = [0, *[1000] * PASSES]
    assert is_merged(still, 5)
    assert not is_merged(still, 300)
    assert not is_merged([*still, 1100], 5)
    assert not is_merged(still[:-1], 5)
