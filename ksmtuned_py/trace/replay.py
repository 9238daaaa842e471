"""Compares another policy's decisions over a trace with the recorded ones.

The trace does not answer: had the other policy been in charge, the counters would have gone another way.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby

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


def compare(steps: Iterable[ReplayedTick]) -> Comparison:
    """Sums up the steps. Of those that are alike only the first is kept, for a trace may have millions."""
    recorded, replayed = _Summing(), _Summing()
    stretches: list[Stretch] = []
    ticks, differing, until = 0, 0, 0.0
    for kind, group in groupby(steps, _kind):
        first = next(group)
        alike = 0
        for step in chain([first], group):
            recorded.add(step.seconds, step.recorded)
            replayed.add(step.seconds, step.replayed)
            alike, until = alike + 1, step.seconds
        ticks += alike
        if kind is not None:
            differing += alike
            stretches.append(Stretch(first=first, ticks=alike, until_seconds=until))
    return Comparison(
        ticks=ticks,
        differing=differing,
        seconds=until,
        stretches=stretches,
        recorded=recorded.side(),
        replayed=replayed.side(),
    )


def _kind(step: ReplayedTick) -> tuple[str, ...] | None:
    """Returns what stays the same within a stretch; None for ticks that do not differ."""
    recorded, replayed = step.recorded, step.replayed
    return (recorded.mode, recorded.rule, replayed.mode, replayed.rule) if step.differs else None


class _Summing:
    """Sums up the decisions of one side, one by one."""

    def __init__(self) -> None:
        self._seconds_in: dict[Mode, float] = {}
        self._changes = 0
        self._before: tuple[float, Decision] | None = None

    def add(self, seconds: float, decision: Decision) -> None:
        """Adds the next one."""
        if self._before is not None:
            began, before = self._before
            self._seconds_in[before.mode] = self._seconds_in.get(before.mode, 0.0) + seconds - began
            self._changes += before.knobs != decision.knobs
        self._before = seconds, decision

    def side(self) -> Side:
        """Returns the sums."""
        return Side(seconds_in=self._seconds_in, changes=self._changes)
