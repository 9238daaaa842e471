"""Computes what merging cost the guests of a run, from what they say of themselves. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.measures import TAIL, goal_bytes
from bench.samples import Sample
from ksmtuned_py.units import GIB

BACK_SHARE = 0.95
LET_GO_SECONDS = 2.0
"""By then the memory that somebody else gave back, in huge pages itself, is gone."""
LEAST_ROUNDS = 6
"""A speed is the middle of at least so many comparisons, if there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """What it was like for the guests."""

    huge_share: float
    """Share of their memory that was in huge pages at the end."""
    split_pages: int
    """Huge pages of the whole machine that were split."""
    splits_per_gib: float | None
    """The same for each GiB saved at the end; None where nothing was."""
    saved_bytes: int
    """Saved at the end, with what splits freed."""
    speed: float | None
    """Random reads a second of the first guest's memory over those of whole memory; None where it was not measured."""
    reads_per_second: float
    """Of all guests together, in the time of the load."""
    cpu_share: float
    """Share of a core that all guests together had. With `speed` it tells what they get done, whatever the machine."""
    waited_share: float
    """Share of a core that all guests together wanted and did not get."""
    saved_at_need: float | None
    """Share of what could be saved that was saved when memory was taken; None where nobody took it."""
    first_huge_share: float
    """Share of the first guest's memory that was in huge pages at the end."""
    back_seconds: float | None
    """From relief on, until 95 % of the huge pages that came back were there; None without relief, or if none came."""
    waits: Mapping[str, Sequence[float]]
    """Quantiles (50, 99, 99.9 %) of a first write, a read and a timer, in microseconds."""


def harm_of(
    samples: Sequence[Sample],
    reports: Sequence[Mapping[str, Any]],
    short_seconds: float | None,
    relief_seconds: float | None,
) -> Harm | None:
    """Returns the harm; None where no guest can say anything. The seconds are of memory taken, and given back."""
    if not reports:
        return None
    last, first = samples[-1], reports[0]
    return Harm(
        huge_share=_sum(reports, "huge_bytes") / _sum(reports, "memory_bytes"),
        split_pages=last.split_pages,
        splits_per_gib=last.split_pages * GIB / last.saved_bytes if last.saved_bytes else None,
        saved_bytes=last.saved_bytes,
        speed=speed_at_end(first.get("speeds", [])),
        reads_per_second=_sum(reports, "reads_per_second"),
        cpu_share=_sum(reports, "cpu_share"),
        waited_share=_sum(reports, "waited_share"),
        saved_at_need=_saved_at(samples, short_seconds),
        first_huge_share=first["huge_bytes"] / first["memory_bytes"],
        back_seconds=_back_after(samples, relief_seconds),
        waits=first.get("waits", {}),
    )


def speed_at_end(speeds: Sequence[float]) -> float | None:
    """Returns the middle one of the last quarter, or of the last few where a quarter is less."""
    wanted = max(LEAST_ROUNDS, math.ceil(len(speeds) * TAIL))
    return median(speeds[-wanted:]) if speeds else None


def _sum(reports: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(float(report[name]) for report in reports)


def _back_after(samples: Sequence[Sample], seconds: float | None) -> float | None:
    if seconds is None:
        return None
    after = [sample for sample in samples if sample.seconds >= seconds + LET_GO_SECONDS]
    if not after or not (came := after[-1].huge_bytes - after[0].huge_bytes) > 0:
        return None
    back = after[0].huge_bytes + BACK_SHARE * came
    return next(sample.seconds for sample in after if sample.huge_bytes >= back) - seconds


def _saved_at(samples: Sequence[Sample], seconds: float | None) -> float | None:
    goal = goal_bytes(samples)
    if seconds is None or not goal:
        return None
    return next((sample.saved_bytes / goal for sample in samples if sample.seconds >= seconds), None)
