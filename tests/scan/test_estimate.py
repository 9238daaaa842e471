"""The estimate does not lie: known mixes of contents, drawn as a survey does, 200 of each kind."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from ksmtuned_py.cli.scanplot import margins
from ksmtuned_py.scanner.estimate import Sample, estimate, estimate_each
from ksmtuned_py.scanner.survey import ADDRESS_SHARE

ROUNDS = 200
Copies = NDArray[np.int64]
"""How many copies each content has, in pages."""
Draw = Callable[[np.random.Generator, int], Copies]


def pairs(chance: np.random.Generator, pages: int) -> Copies:
    return np.full(int(pages * chance.uniform(0.02, 0.4)), 2)


def groups(chance: np.random.Generator, pages: int) -> Copies:
    return chance.integers(2, 51, int(pages * chance.uniform(0.02, 0.5) / 26) + 1)


def zipf(chance: np.random.Generator, pages: int) -> Copies:
    weights = 1 / np.arange(1, chance.integers(1000, 20_000)) ** chance.uniform(0.8, 1.5)
    copies: Copies = np.maximum(1, weights / weights.sum() * pages * chance.uniform(0.1, 0.6)).astype(np.int64)
    return copies


def moderate(chance: np.random.Generator, pages: int) -> Copies:
    return chance.integers(50, 501, chance.integers(20, 301))


def heavy(chance: np.random.Generator, pages: int) -> Copies:
    return chance.integers(2000, 20_001, chance.integers(1, 13))


def poison(chance: np.random.Generator, pages: int) -> Copies:
    return np.array([int(pages * chance.uniform(0.05, 0.5))])


def unique(chance: np.random.Generator, pages: int) -> Copies:
    return np.array([1])


def mixed(*draws: Draw) -> Draw:
    return lambda chance, pages: np.concatenate([draw(chance, pages) for draw in draws])


MIXES: dict[str, Draw] = {
    "pairs": pairs,
    "groups of 2 to 50": groups,
    "Zipf": zipf,
    "20 to 300 contents with 50 to 500 copies": moderate,
    "1 to 12 contents with 2000 to 20000 copies": heavy,
    "one content is 5 to 50 % of all pages": poison,
    "nothing equal": unique,
    "pairs and one content": mixed(pairs, poison),
    "pairs and moderate": mixed(pairs, moderate),
    "pairs and Zipf": mixed(pairs, zipf),
    "groups and heavy": mixed(groups, heavy),
}


def with_unique_pages(copies: Copies, pages: int) -> Copies:
    """Adds the rest of the memory, which is unique: a tenth at least."""
    size = int(copies.sum())
    return np.concatenate([copies, np.ones(max(pages, size * 10 // 9) - size, np.int64)])


def surveyed(copies: Copies, share: float, chance: np.random.Generator) -> Sample:
    """Returns a guest with these contents, as a survey sees it; content number n has the print n + 2."""
    prints = np.arange(2, len(copies) + 2, dtype=np.uint64)
    common, several = np.zeros(len(copies), np.bool_), copies > 1  # of a single copy nobody finds two
    common[several] = chance.binomial(copies[several], ADDRESS_SHARE) >= 2
    drawn = ~common & (chance.random(len(copies)) < share)
    return Sample(
        name="a",
        pid=1,
        group="",
        zero_pages=0,
        filled_pages=int(copies.sum()),
        prints=np.repeat(prints[drawn], copies[drawn]),
        common=prints[common],
        common_copies=copies[common],
    )


@pytest.mark.parametrize("share", [0.01, 0.05])
@pytest.mark.parametrize("mix", MIXES)
def test_an_interval_holds_as_often_as_it_says_or_the_least_is_told(mix: str, share: float) -> None:
    chance = np.random.default_rng(sorted(MIXES).index(mix))
    told, covered = 0, 0
    for _ in range(ROUNDS):
        pages = int(chance.integers(60_000, 160_000))
        copies = with_unique_pages(MIXES[mix](chance, pages), pages)
        true, found = int((copies - 1).sum()), estimate([surveyed(copies, share, chance)], share, 1)
        told += found.high is not None
        covered += found.low <= true and (found.high is None or true <= found.high)
    assert covered >= 0.9 * ROUNDS
    if mix == "pairs" and share == 0.05:
        assert told >= 0.9 * ROUNDS  # where many pages are equal, the interval has something to say


@pytest.mark.parametrize("mix", ["1 to 12 contents with 2000 to 20000 copies", "one content is 5 to 50 % of all pages"])
def test_the_least_is_nearly_all_where_few_contents_have_very_many_copies(mix: str) -> None:
    chance = np.random.default_rng(5)
    for _ in range(20):
        copies = with_unique_pages(MIXES[mix](chance, 100_000), 100_000)
        found = estimate([surveyed(copies, 0.01, chance)], 0.01, 1)
        assert 0.95 * (copies - 1).sum() <= found.low <= (copies - 1).sum()


def test_what_is_known_exactly_is_counted_once_across_guests_and_in_equal_parts_for_each() -> None:
    def guest(copies: int) -> Sample:
        return Sample(
            name="a",
            pid=1,
            group="",
            zero_pages=0,
            filled_pages=1000,
            prints=np.empty(0, np.uint64),
            common=np.array([7], np.uint64),
            common_copies=np.array([copies], np.int64),
        )

    found = estimate([guest(300), guest(500)], 0.01, 1)
    assert (found.self_bytes, found.cross_bytes, found.low, found.high) == (798, 1, 799, None)
    each = estimate_each([guest(300), guest(500)], 0.01, 1)
    assert [round(one.saveable_bytes) for one in each] == [300, 500]  # 299.5 and 499.5
    assert margins(each) == ([0, 0], [0, 0])
