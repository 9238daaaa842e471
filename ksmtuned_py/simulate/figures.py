"""Computes what a run through a scenario came to."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from ksmtuned_py.model import Mode
from ksmtuned_py.simulate.run import SimulatedRun, SimulatedSample
from ksmtuned_py.simulate.scenario import Scenario

MARKS = (0.5, 0.9, 0.95)
"""Shares of what can be saved."""
STEADY_PART = 0.25
"""The last part of the time, over which the steady CPU is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The moment when so much of what could be saved was saved."""

    share: float
    seconds: float
    """Seconds since the last of the first guests had come."""
    cpu_seconds: float
    """CPU time of ksmd since the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One row of the table."""

    policy: str
    reached: tuple[Reached, ...]
    """One for each of MARKS, in order; those that were never reached are left out."""
    saved_area: float
    """The share of what could be saved that was saved (0 to 1), on average over time."""
    saved_bytes: int
    """Saved at the end."""
    cpu_seconds: float
    """CPU time of ksmd in all."""
    steady_cpu: float
    """ksmd's share of one core in the last quarter."""
    longest_pass_seconds: float | None
    longest_boost_pass_seconds: float | None
    """The longest pass that was boosted from end to end; None when there was none."""
    deciding_cpu: float
    """Share of one core that the policy itself took, without the sensors."""
    wall_seconds: float
    """Wall time that the simulation took."""
    least_available_bytes: int
    huge_share: float | None
    """The share of the guests' memory that was in huge pages at the end; None where it never was."""
    speed: float | None
    """The speed of the guests' memory, of that in huge pages alone, on average over time."""


def figures(scenario: Scenario, run: SimulatedRun) -> Figures:
    """Returns the row of a run."""
    samples = run.samples
    passes = list(_passes(samples))
    boosts = [seconds for seconds, boosted in passes if boosted]
    steady = [sample for sample in samples if sample.seconds >= scenario.seconds * (1 - STEADY_PART)]
    return Figures(
        policy=run.policy,
        reached=tuple(_reached(scenario, samples)),
        saved_area=_area(samples),
        saved_bytes=samples[-1].saved_bytes,
        cpu_seconds=samples[-1].cpu_seconds,
        steady_cpu=_share(steady),
        longest_pass_seconds=max((seconds for seconds, _ in passes), default=None),
        longest_boost_pass_seconds=max(boosts, default=None),
        deciding_cpu=run.deciding_seconds / scenario.seconds,
        wall_seconds=run.seconds,
        least_available_bytes=min(sample.available_bytes for sample in samples),
        huge_share=samples[-1].huge_share,
        speed=_speed(samples),
    )


def _reached(scenario: Scenario, samples: tuple[SimulatedSample, ...]) -> Iterator[Reached]:
    begin = scenario.complete_seconds
    for mark in MARKS:
        for sample in samples:
            enough = 0 < sample.achievable_bytes * mark <= sample.saved_bytes
            if sample.seconds >= begin and enough:
                yield Reached(share=mark, seconds=sample.seconds - begin, cpu_seconds=sample.cpu_seconds)
                break


def _area(samples: tuple[SimulatedSample, ...]) -> float:
    saved = best = 0.0
    for before, after in pairwise(samples):
        seconds = after.seconds - before.seconds
        saved += (before.saved_bytes + after.saved_bytes) / 2 * seconds
        best += before.achievable_bytes * seconds
    return saved / best if best else 0.0


def _speed(samples: tuple[SimulatedSample, ...]) -> float | None:
    seconds = total = 0.0
    for before, after in pairwise(samples):
        if before.speed is not None:
            seconds += after.seconds - before.seconds
            total += before.speed * (after.seconds - before.seconds)
    return total / seconds if seconds else None


def _share(samples: list[SimulatedSample]) -> float:
    if len(samples) < 2:
        return 0.0
    seconds = samples[-1].seconds - samples[0].seconds
    return (samples[-1].cpu_seconds - samples[0].cpu_seconds) / seconds


def _passes(samples: tuple[SimulatedSample, ...]) -> Iterator[tuple[float, bool]]:
    """Yields each pass as its length, to the tick, and whether it was boosted from end to end."""
    since, boosted = samples[0].seconds, True
    for before, after in pairwise(samples):
        boosted = boosted and before.mode is Mode.BOOST
        if after.passes > before.passes:
            yield (after.seconds - since) / (after.passes - before.passes), boosted
            since, boosted = after.seconds, True
