"""The chance that the worst of a time to come is worse than some limit, from the worst of times before. Pure.

Theory of operation
===================
The next time is one like those before. So it is the worst of all n + 1 with a chance of 1 in n + 1, and among the two
worst with twice that, whatever the values are. That much needs no assumption, and answers for limits within the record.

Beyond the record its largest values are continued. What exceeds a high level has, whatever the values are, nearly the
generalised Pareto distribution. It has a width and a shape: shape 0 falls off fast, a larger one has rare and very
large values. Few values do not say which are the true ones. So none is chosen. All count, each by how well it explains
the record (Bayes). That widens the answer by as much as the record is too short.

The weights before the record was seen are even in the logarithm of the width, so the answer does not depend on units.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, log

SHAPES = {-0.25: 1.0, -0.1: 2.0, 0.001: 3.0, 0.1: 3.0, 0.2: 2.5, 0.35: 2.0, 0.5: 1.5, 0.75: 1.0, 1.0: 0.5}
"""The shapes that count, and their weights beforehand; 0.001 stands for 0, for which the formula has another form."""
WIDTHS, WIDTH_LEAST, WIDTH_MOST = 40, 0.05, 20.0
"""The number of widths that are tried, and their range in means of what is above the level."""
TAIL_SHARE, TAIL_LEAST = 1 / 3, 5
"""So many of the values are taken for its largest, and so many at least."""


@dataclass(frozen=True, slots=True)
class _Tail:
    """One distribution of what is above the level, with its weight."""

    weight: float
    width: float
    shape: float

    def beyond(self, above: float) -> float:
        """The share of what is above the level that is more than this above it."""
        base = 1 + self.shape * above / self.width
        return exp(-log(base) / self.shape) if base > 0 else 0.0


class Worst:
    """What the worst of a time may be, by a record of such times."""

    def __init__(self, record: Sequence[float], least_width: float) -> None:
        """Take a record of at least six times, whose largest values are no closer together than that."""
        self._values = sorted(record)
        count = max(TAIL_LEAST, round(len(record) * TAIL_SHARE))
        self._level = self._values[-count - 1]
        excesses = [value - self._level for value in self._values[-count:]]
        self._tails = _tails(excesses, max(least_width, sum(excesses) / count), least_width)
        self._beyond_record = self._beyond(self._values[-1])

    def chance(self, limit: float, times: float = 1.0) -> float:
        """The chance, 0 to 1, that the worst of so many times is worse than the limit."""
        return 1 - float((1 - self._of_one(limit)) ** times)

    def _of_one(self, limit: float) -> float:
        count = len(self._values)
        place = bisect_left(self._values, limit)
        if place == 0:
            return 1.0
        if place == count:
            return self._beyond(limit) / self._beyond_record / (count + 1)
        return (count - place + self._part(limit, self._values[place - 1], self._values[place])) / (count + 1)

    def _part(self, limit: float, below: float, above: float) -> float:
        """The share of what is between two neighbours in the record that is more than the limit."""
        if below < self._level:
            return (above - limit) / (above - below)
        least, most = self._beyond(above), self._beyond(below)
        return (self._beyond(limit) - least) / (most - least)

    def _beyond(self, limit: float) -> float:
        return sum(one.weight * one.beyond(limit - self._level) for one in self._tails)


def _tails(excesses: Sequence[float], mean: float, least_width: float) -> tuple[_Tail, ...]:
    """The distributions that these values above a level allow, none narrower than that."""
    tried = list(_tried(excesses, mean, least_width))
    best = max(likelihood for likelihood, _, _ in tried)
    weights = [exp(likelihood - best) for likelihood, _, _ in tried]
    total = sum(weights)
    return tuple(_Tail(weight / total, width, shape) for weight, (_, width, shape) in zip(weights, tried, strict=True))


def _tried(excesses: Sequence[float], mean: float, least_width: float) -> Iterator[tuple[float, float, float]]:
    """The distributions on a grid, after the logarithms of their weights."""
    for step in range(WIDTHS):
        width = max(least_width, mean * WIDTH_LEAST * (WIDTH_MOST / WIDTH_LEAST) ** (step / (WIDTHS - 1)))
        for shape, weight in SHAPES.items():
            bases = [1 + shape * excess / width for excess in excesses]
            if min(bases) > 0:
                logs = sum(map(log, bases))
                yield log(weight) - len(bases) * log(width) - (1 + 1 / shape) * logs, width, shape
