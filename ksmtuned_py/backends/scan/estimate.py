"""PURE: from a sample of contents, how many pages could be saved in all, with an interval.

The sample is one of contents, not of addresses: a page is in it when its content is, and then all its copies are, too.
(Of addresses, 5 % would hold a quarter of a percent of all pairs.) With p the share of contents drawn and m the copies
of a content, (m - 1) / p summed over the sample is an unbiased estimate of what can be saved. All pages are counted
exactly, so the known error of m / p summed over the sample corrects it (a control variate, as in survey sampling's
regression estimator): that leaves about a third of the error.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

import numpy as np

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
    own = sum(_copies([sample], share)[0] for sample in samples)
    parts = [_copies(group, share) for group in _groups(samples)]
    equal = max(own, sum(copies for copies, _ in parts))
    margin = _TWO_SIGMA * sqrt(sum(variance for _, variance in parts))
    most = zero + sum(sample.filled_pages for sample in samples)
    return Saveable(
        zero_bytes=zero * page_bytes,
        self_bytes=round(own) * page_bytes,
        cross_bytes=(round(equal) - round(own)) * page_bytes,
        low=round(max(zero, zero + equal - margin)) * page_bytes,
        high=round(min(most, zero + equal + margin)) * page_bytes,
    )


def _groups(samples: list[Sample]) -> Iterable[list[Sample]]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    return groups.values()


def _copies(samples: list[Sample], share: float) -> tuple[float, float]:
    """How many pages are a copy of another one, and the variance of that."""
    copies = np.unique(np.concatenate([sample.prints for sample in samples]), return_counts=True)[1].astype(np.float64)
    if not len(copies):
        return 0.0, 0.0
    pages = sum(sample.filled_pages for sample in samples)
    slope = float((copies * (copies - 1)).sum() / (copies * copies).sum())
    rest = copies - 1 - slope * copies
    found = float(rest.sum()) / share + slope * pages
    variance = (1 - share) / share**2 * float((rest * rest).sum())
    return min(float(pages), max(0.0, found)), variance
