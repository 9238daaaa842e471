"""The best that giving back huge pages could come to: which ranges stay merged, so that most are whole. Pure.

A range is the memory of one huge page. Of the copies of one content that are merged, all but one are gained. Which
ranges are best is a hard question as soon as copies lie in several of them: no order here is proved to be the best one.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Contents: TypeAlias = NDArray[np.uint64]
"""A hash of each page of a range that is there."""
Numbers: TypeAlias = NDArray[np.int64]


def curves(ranges: Sequence[Contents]) -> dict[str, Numbers]:
    """Returns for some ways to choose the pages gained when no range stays merged, when one does, and so on.

    `best` gives back, range by range, the one that costs least by then. `densest` keeps those with the most pages that
    could be merged. `counts` does that, too, but has all of these pages gain alike, wherever their copies are.
    """
    counts = mergeable_pages(ranges)
    densest = gains(ranges, np.argsort(-counts, kind="stable"))
    alike = np.cumsum([0, *np.sort(counts)[::-1]])
    return {
        "best": gains(ranges, dearest_first(ranges)),
        "densest": densest,
        "counts": np.rint(alike * (densest[-1] / max(1, alike[-1]))).astype(np.int64),
    }


def huge_share(curve: Numbers, wanted_pages: float) -> float:
    """Returns the share of ranges that may be whole so that still so many pages are gained; 0 for too many."""
    split = int(np.searchsorted(curve, wanted_pages))
    return max(0.0, 1 - split / (len(curve) - 1))


def mergeable_pages(ranges: Sequence[Contents]) -> Numbers:
    """Returns for each range how many of its pages have a content that is found at least twice."""
    _, content, copies = np.unique(np.concatenate(ranges), return_inverse=True, return_counts=True)
    return np.bincount(_range_of_page(ranges), weights=copies[content] > 1, minlength=len(ranges)).astype(np.int64)


def gains(ranges: Sequence[Contents], order: Numbers) -> Numbers:
    """Returns the pages gained when only the first ranges in this order stay merged: none, one, and so on."""
    kept = [ranges[number] for number in order]
    _, first = np.unique(np.concatenate(kept), return_index=True)
    new = np.bincount(_range_of_page(kept)[first], minlength=len(kept))
    return np.cumsum([0, *(np.array([len(each) for each in kept]) - new)])


def dearest_first(ranges: Sequence[Contents]) -> Numbers:
    """Returns the numbers of the ranges: the last is the cheapest to give back, the one before it the next then."""
    left = Counter(np.concatenate(ranges).tolist())
    inside = [_several(each, left) for each in ranges]
    holders: dict[int, list[int]] = {}
    for number, contents in enumerate(inside):
        for content in contents:
            holders.setdefault(content, []).append(number)
    costs = [float(sum(_cost(own, left[content]) for content, own in contents.items())) for contents in inside]
    given_back = []
    for _ in ranges:
        cheapest = min(range(len(costs)), key=costs.__getitem__)
        given_back.append(cheapest)
        costs[cheapest] = np.inf
        for content, own in inside[cheapest].items():
            before, left[content] = left[content], left[content] - own
            for holder in holders[content]:
                others = inside[holder][content]
                costs[holder] += _cost(others, left[content]) - _cost(others, before)
    return np.array(given_back[::-1], np.int64)


def _several(contents: Contents, copies: Counter[int]) -> dict[int, int]:
    return {content: own for content, own in Counter(contents.tolist()).items() if copies[content] > 1}


def _cost(own: int, copies: int) -> int:
    """Returns what it costs when so many of the merged copies of one content are given back: the last one is free."""
    return max(0, min(own, copies - 1))


def _range_of_page(ranges: Sequence[Contents]) -> Numbers:
    return np.repeat(np.arange(len(ranges)), [len(each) for each in ranges])
