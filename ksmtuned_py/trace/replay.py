"""Compares another policy's decisions over a trace with the recorded ones.

The trace does not answer: had the other policy been in charge, the counters would have gone another way.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

from ksmtuned_py.config import Config
from ksmtuned_py.model import Decision, Mode
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.tick import decide
from ksmtuned_py.trace.lines import Tick


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedTick:
    """One tick, decided twice."""

    seconds: float
    """Seconds since the trace began."""
    recorded: Decision
    replayed: Decision

    @property
    def differs(self) -> bool:
        """Whether another mode or other knobs are wanted."""
        return (self.recorded.mode, self.recorded.knobs) != (self.replayed.mode, self.replayed.knobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Ticks in a row that differ in the same way, with both modes and both rules unchanged."""

    first: ReplayedTick
    """The first of them; the knobs of later ones may differ in other numbers."""
    ticks: int
    until_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The decisions of one side, summed up."""

    seconds_in: dict[Mode, float]
    changes: int
    """Ticks that wanted other knobs than the tick before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The comparison over all of a trace."""

    ticks: int
    differing: int
    seconds: float
    stretches: list[Stretch]
    recorded: Side
    replayed: Side


def replay(ticks: Iterable[Tick], config: Config) -> Iterator[ReplayedTick]:
    """Yields each tick with what the configured policy makes of it."""
    trend, begin = Trend.begin(config), None
    for tick in ticks:
        seconds = tick.snapshot.clock.monotonic_seconds
        begin = seconds if begin is None else begin
        trend, replayed, _ = decide(tick.snapshot, config, trend)
        yield ReplayedTick(seconds=seconds - begin, recorded=tick.decision, replayed=replayed)


def compare(steps: list[ReplayedTick]) -> Comparison:
    """Sums up the steps."""
    times = [step.seconds for step in steps]
    return Comparison(
        ticks=len(steps),
        differing=sum(step.differs for step in steps),
        seconds=times[-1] if times else 0.0,
        stretches=list(_stretches(steps)),
        recorded=_side(times, [step.recorded for step in steps]),
        replayed=_side(times, [step.replayed for step in steps]),
    )


def _stretches(steps: list[ReplayedTick]) -> Iterator[Stretch]:
    for kind, group in groupby(steps, _kind):
        same = list(group)
        if kind is not None:
            yield Stretch(first=same[0], ticks=len(same), until_seconds=same[-1].seconds)


def _kind(step: ReplayedTick) -> tuple[str, ...] | None:
    """Returns what stays the same within a stretch; None for ticks that do not differ."""
    recorded, replayed = step.recorded, step.replayed
    return (recorded.mode, recorded.rule, replayed.mode, replayed.rule) if step.differs else None


def _side(times: list[float], decisions: list[Decision]) -> Side:
    seconds_in: dict[Mode, float] = {}
    for decision, (begin, end) in zip(decisions, pairwise(times), strict=False):
        seconds_in[decision.mode] = seconds_in.get(decision.mode, 0.0) + end - begin
    return Side(seconds_in=seconds_in, changes=sum(one.knobs != other.knobs for one, other in pairwise(decisions)))
