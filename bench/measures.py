"""Computes what the samples of a run come to. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.samples import Sample

TAIL = 0.25
"""The share of the time, at its end, that is the steady state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The moment when a share of what can be merged was merged; infinite where it never was."""

    seconds: float = float("inf")
    ksmd_cpu_seconds: float = float("inf")
    passes: float = float("inf")


def goal_bytes(samples: Sequence[Sample]) -> int:
    """Returns the most that could be saved at any time."""
    return max((sample.possible_bytes for sample in samples), default=0)


def reached(samples: Sequence[Sample], share: float) -> Reached:
    """Returns the first moment at which this share of the goal was saved."""
    wanted = goal_bytes(samples) * share
    for sample in samples:
        if wanted and sample.saved_bytes >= wanted:
            return Reached(
                seconds=sample.seconds, ksmd_cpu_seconds=sample.ksmd_cpu_seconds, passes=float(sample.passes)
            )
    return Reached()


def area(samples: Sequence[Sample]) -> float | None:
    """Returns the share of what could be saved that was saved, over all the time; None without anything to merge."""
    possible = _integral(samples, lambda sample: sample.possible_bytes)
    return (
        _integral(samples, lambda sample: min(sample.saved_bytes, sample.possible_bytes)) / possible
        if possible
        else None
    )


def steady_cpu_share(samples: Sequence[Sample]) -> float:
    """Returns ksmd's share of one core in the last quarter of the time."""
    last = samples[-1]
    first = next(sample for sample in samples if sample.seconds >= last.seconds * (1 - TAIL))
    wall = last.seconds - first.seconds
    return (last.ksmd_cpu_seconds - first.ksmd_cpu_seconds) / wall if wall else 0.0


def saved_share(samples: Sequence[Sample]) -> float | None:
    """Returns the share of what could be saved that was saved at the end; None without anything to merge."""
    last = samples[-1]
    return last.saved_bytes / last.possible_bytes if last.possible_bytes else None


def all_guests_seconds(samples: Sequence[Sample], guests: int) -> float:
    """Returns the seconds until so many guests were there; infinite when they never were."""
    return next((sample.seconds for sample in samples if sample.guests >= guests), float("inf"))


def share_after_passes(samples: Sequence[Sample], guests: int, passes: int) -> float | None:
    """Returns the share of the goal saved so many whole passes after all guests came; None with fewer passes."""
    there = next((sample.passes for sample in samples if sample.guests >= guests), None)
    goal = goal_bytes(samples)
    if there is None or not goal:
        return None
    under_way = 1  # the pass in which the last guest came does not count
    later = (sample.saved_bytes for sample in samples if sample.passes >= there + under_way + passes)
    return next((saved / goal for saved in later), None)


def passes_at_a_loss(samples: Sequence[Sample], guests: int) -> int:
    """Returns the most passes in a row that ended at a net loss, once so many guests are there.

    Before, guests fill their memory, and passes over the little that is there take a tenth of a second.
    """
    most = now = 0
    there = [sample for sample in samples if sample.guests >= guests]
    for before, sample in pairwise(there):
        finished = sample.passes - before.passes
        if finished > 0:
            now = now + finished if sample.profit_bytes < 0 else 0
        most = max(most, now)
    return most


def _integral(samples: Sequence[Sample], height: Callable[[Sample], float]) -> float:
    return sum(height(before) * (after.seconds - before.seconds) for before, after in pairwise(samples))
