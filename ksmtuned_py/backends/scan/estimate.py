"""PURE: from a sample of contents, how many pages could be saved in all, with an interval.

The sample is one of contents, not of addresses: a page is in it when its content is, and then all its copies are, too.
(Of addresses, 5 % would hold a quarter of a percent of all pairs.) With p the share of contents drawn and m the copies
of a content, (m - 1) / p summed over the sample is an unbiased estimate of what can be saved. All pages are counted
exactly, so the known error of m / p summed over the sample corrects it (a control variate, as in survey sampling's
regression estimator): that leaves about a third of the error.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ksmtuned_py.backends.scan.pages import Prints

_TWO_SIGMA = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was seen of one guest."""

    name: str
    pid: int
    group: str
    zero_pages: int
    filled_pages: int
    """All other private pages in memory."""
    prints: Prints
    """Of those whose content is in the sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saveable:
    """What merging could give back, in bytes."""

    zero_bytes: int
    self_bytes: int
    """Equal to another page of the same guest."""
    cross_bytes: int
    """Equal to a page of another guest of the group, and the first of its kind in its own."""
    low: int
    high: int
    """Where the sum lies with 95 % confidence."""

    @property
    def saveable_bytes(self) -> int:
        """The sum."""
        return self.zero_bytes + self.self_bytes + self.cross_bytes


def estimate(samples: list[Sample], share: float, page_bytes: int) -> Saveable:
    """Over all guests, share being the part of all contents that was drawn; pages are shared only within a group."""
    zero = sum(sample.zero_pages for sample in samples)
    filled = sum(sample.filled_pages for sample in samples)
    own = sum(_copies([sample], share)[0] for sample in samples)
    parts = [_copies(group, share) for group in _groups(samples).values()]
    equal, variance = (sum(column) for column in zip((0.0, 0.0), *parts, strict=True))
    return _saveable(zero, filled, own, equal, variance, page_bytes)


def estimate_each(samples: list[Sample], share: float, page_bytes: int) -> list[Saveable]:
    """Of each guest, in order; what is saved by sharing with others counts in equal parts for all that share."""
    sharers = {
        name: np.unique(np.concatenate([np.unique(one.prints) for one in group]), return_counts=True)
        for name, group in _groups(samples).items()
    }
    found = []
    for sample in samples:
        prints, copies = np.unique(sample.prints, return_counts=True)
        contents, counts = sharers[sample.group]
        having = counts[np.searchsorted(contents, prints)]
        own, _ = _total(copies, copies - 1.0, sample.filled_pages, share)
        equal, variance = _total(copies, copies - 1 / having, sample.filled_pages, share)
        found.append(_saveable(sample.zero_pages, sample.filled_pages, own, equal, variance, page_bytes))
    return found


def _saveable(zero: int, filled: int, own: float, equal: float, variance: float, page_bytes: int) -> Saveable:
    """From pages: `own` copies within guests, of all `equal` ones."""
    within, all_equal, margin = round(own), round(max(own, equal)), _TWO_SIGMA * sqrt(variance)
    return Saveable(
        zero_bytes=zero * page_bytes,
        self_bytes=within * page_bytes,
        cross_bytes=(all_equal - within) * page_bytes,
        low=round(max(zero, zero + all_equal - margin)) * page_bytes,
        high=round(min(zero + filled, zero + all_equal + margin)) * page_bytes,
    )


def _groups(samples: list[Sample]) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    return groups


def _copies(samples: list[Sample], share: float) -> tuple[float, float]:
    """How many pages are a copy of another one, and the variance of that."""
    copies = np.unique(np.concatenate([sample.prints for sample in samples]), return_counts=True)[1]
    return _total(copies, copies - 1.0, sum(sample.filled_pages for sample in samples), share)


def _total(
    copies: NDArray[np.int64], saved: NDArray[np.floating[Any]], pages: int, share: float
) -> tuple[float, float]:
    """What is saved over all contents, given what each of the sample saves, and the variance of that."""
    if not len(copies):
        return 0.0, 0.0
    slope = float((copies * saved).sum() / (copies * copies).sum())
    rest = saved - slope * copies
    found = float(rest.sum()) / share + slope * pages
    variance = (1 - share) / share**2 * float((rest * rest).sum())
    return min(float(pages), max(0.0, found)), variance
