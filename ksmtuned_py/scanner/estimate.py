"""Estimates from a sample of contents how many pages could be saved, as an interval or as a sure least. Pure.

The sample is one of contents, not of addresses: all copies of a drawn content are in it. A sample of 5 % of the
addresses would hold a quarter of a percent of all pairs.

Let p be the share of contents drawn, and m the copies of a content. Then (m - 1) / p, summed over the sample, is an
unbiased estimate of what can be saved. All pages are counted exactly, so the error of m / p, summed over the sample, is
known. It corrects the estimate (a control variate, as in survey sampling's regression estimator). That leaves about a
third of the error.

Contents with very many copies are common. A sample of addresses finds them, and they are counted one by one. They are
no part of the sample of contents. Where the rest hangs on a few contents after all, nobody knows how much more there
is. Then only what was seen is told.
"""

from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ksmtuned_py.scanner.pages import Prints

_TWO_SIGMA = 1.96
_FEW_CONTENTS = 20
"""With fewer equal contents, an interval of 95 % holds less often than that; see tests/scan/test_estimate.py."""
Copies = NDArray[np.int64]
Saved = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was seen of one guest."""

    name: str
    pid: int
    group: str
    zero_pages: int
    filled_pages: int
    """Private pages in memory that are not zero."""
    prints: Prints
    """Prints of the pages whose content is in the sample, without the common ones."""
    common: Prints = field(default_factory=lambda: np.empty(0, np.uint64))
    """Prints of the contents that were counted one by one, ascending."""
    common_copies: Copies = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Saveable:
    """What merging could give back, in bytes."""

    zero_bytes: int
    self_bytes: int
    """Bytes of pages that equal another page of the same guest."""
    cross_bytes: int
    """Bytes of pages that equal a page of another guest of the group; each guest counts a content once."""
    low: int
    high: int | None
    """The sum lies between `low` and `high` with 95 % confidence; without `high`, `low` is the least that is sure."""

    @property
    def saveable_bytes(self) -> int:
        """The sum of both, in bytes."""
        return self.zero_bytes + self.self_bytes + self.cross_bytes


@dataclass(frozen=True, slots=True)
class _Part:
    """Pages that could be saved."""

    seen: float
    """Pages saved within the sample itself, which are sure."""
    found: float
    """Pages saved in all, by the estimate."""
    variance: float
    known: bool
    """Whether the estimate rests on enough contents."""


def estimate(samples: list[Sample], share: float, page_bytes: int) -> Saveable:
    """Estimates over all guests, from that share of all contents; pages are shared only within a group."""
    own, parts = 0.0, []
    for group in _groups(samples).values():
        parts.append(_equal(group, share))
        owns = [_equal([sample], share) for sample in group]
        own += sum(one.found if parts[-1].known else one.seen for one in owns)
    return _saveable(samples, own, parts, page_bytes)


def estimate_each(samples: list[Sample], share: float, page_bytes: int) -> list[Saveable]:
    """Estimates for each guest, in order; what guests save together is divided equally among those that share it."""
    groups = _groups(samples)
    drawn = {name: _sharers([np.unique(one.prints) for one in group]) for name, group in groups.items()}
    common = {name: _sharers([one.common for one in group]) for name, group in groups.items()}
    found = []
    for sample in samples:
        prints, copies = np.unique(sample.prints, return_counts=True)
        exact = float((sample.common_copies - 1 / _having(common[sample.group], sample.common)).sum())
        saved = copies - 1 / _having(drawn[sample.group], prints)
        part = _part(copies, saved, _light_pages([sample]), share, exact)
        own = _equal([sample], share)
        found.append(_saveable([sample], own.found if part.known else own.seen, [part], page_bytes))
    return found


def _saveable(samples: list[Sample], own: float, parts: list[_Part], page_bytes: int) -> Saveable:
    """Turns pages into bytes; `own` are the copies within guests, among all equal pages."""
    zero, filled = sum(one.zero_pages for one in samples), sum(one.filled_pages for one in samples)
    known = all(part.known for part in parts)
    equal = sum(part.found if part.known else part.seen for part in parts)
    margin = _TWO_SIGMA * sqrt(sum(part.variance for part in parts if part.known))
    sure = zero + sum(part.seen for part in parts)
    within, all_equal = round(own), round(max(own, equal))
    low = min(zero + all_equal, round(max(sure, zero + all_equal - margin)))
    return Saveable(
        zero_bytes=zero * page_bytes,
        self_bytes=within * page_bytes,
        cross_bytes=(all_equal - within) * page_bytes,
        low=low * page_bytes,
        high=round(min(zero + filled, zero + all_equal + margin)) * page_bytes if known else None,
    )


def _groups(samples: list[Sample]) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    return groups


def _sharers(contents: list[Prints]) -> tuple[Prints, Copies]:
    """Returns each content, and how many guests have it."""
    found, counts = np.unique(np.concatenate(contents), return_counts=True)
    return found, counts


def _having(sharers: tuple[Prints, Copies], prints: Prints) -> Copies:
    having: Copies = sharers[1][np.searchsorted(sharers[0], prints)]
    return having


def _light_pages(samples: list[Sample]) -> int:
    """Pages whose content was not counted one by one."""
    return sum(sample.filled_pages - int(sample.common_copies.sum()) for sample in samples)


def _equal(samples: list[Sample], share: float) -> _Part:
    """Returns how many pages are a copy of another one."""
    copies = np.unique(np.concatenate([sample.prints for sample in samples]), return_counts=True)[1]
    common = np.unique(np.concatenate([sample.common for sample in samples]))
    exact = sum(int(sample.common_copies.sum()) for sample in samples) - len(common)
    return _part(copies, copies - 1.0, _light_pages(samples), share, exact)


def _part(copies: Copies, saved: Saved, pages: int, share: float, exact: float) -> _Part:
    """Returns what all contents save, from what each sampled content saves and what is known exactly."""
    seen = exact + float(saved.sum())
    if not len(copies):
        return _Part(seen, seen, 0.0, share >= 1 or not pages)
    slope = float((copies * saved).sum() / (copies * copies).sum())
    remainder = saved - slope * copies
    found = min(float(pages), max(0.0, float(remainder.sum()) / share + slope * pages))
    variance = (1 - share) / share**2 * float((remainder * remainder).sum())
    return _Part(seen, max(seen, exact + found), variance, share >= 1 or _equals(saved) >= _FEW_CONTENTS)


def _equals(saved: Saved) -> float:
    """Returns how many equal contents would make the sum as uncertain as this one: a few large ones count little."""
    squares = saved * saved
    total = float(squares.sum())
    return total * total / float((squares * squares).sum()) if total else 0.0
