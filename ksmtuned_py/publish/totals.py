"""Counts what has happened since the daemon started. It is pure, every tick advances it, and all surfaces show it."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from ksmtuned_py.model import HugeBack, KnobName, Snapshot, WriteStatus
from ksmtuned_py.policy.capacity import Outlook
from ksmtuned_py.policy.hugepages import HugeCost
from ksmtuned_py.publish.climbing import Climbing, KernelCounter
from ksmtuned_py.report import Report
from ksmtuned_py.units import GIB

TICK_BOUNDS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)
SHARE_WINDOW_SECONDS = 60.0
"""The time over which scanner_share is averaged, long enough for the gap between two passes in cruise."""
CPU = KernelCounter.SCANNER_CPU_SECONDS
LATE_SECONDS = 1.0
"""A tick that begins so long after it was due is late: ten times what a busy host takes to wake somebody."""
Where = Literal["tick", "sensor", "publish"]
"""The places of errors: a tick that failed, a sensor, a surface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over all ticks."""

    ticks: int = 0
    tick_seconds: float = 0.0
    ticks_within: tuple[int, ...] = (0,) * len(TICK_BOUNDS_SECONDS)
    """The ticks that took at most so long, one count for each of TICK_BOUNDS_SECONDS."""
    ticks_late: int = 0
    """The ticks that began more than LATE_SECONDS after they were due."""
    last_late_seconds: float = 0.0
    """How long after it was due the last tick began; 0 when it was in time."""
    due_seconds: float | None = None
    """When the next tick is due (monotonic); None before the first."""
    climbing: dict[str, Climbing] = field(default_factory=dict)
    """The kernel's counters by the names of their metrics, as far as this kernel has them."""
    scanner_share: float | None = None
    """The scanner's CPU lately as a share of one core, a decaying mean over SHARE_WINDOW_SECONDS."""
    huge_cost: HugeCost = field(default_factory=HugeCost)
    """What merging has cost in huge pages so far."""
    huge_back: HugeBack = field(default_factory=HugeBack)
    """What was given back of it."""
    capacity: Outlook | None = None
    """How many more guests fit, by the last answer, which may be ten minutes old; None as long as nobody can tell."""
    monotonic_seconds: float | None = None
    """The time of the last report's snapshot."""
    writes: dict[KnobName, dict[WriteStatus, int]] = field(default_factory=dict)
    foreign_writes: dict[KnobName, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    """Errors by place. Writes that failed are in `writes`."""
    last_error: str = ""

    def total(self, counter: KernelCounter) -> float | None:
        """The value of a counter; None when the kernel has never shown it."""
        climbing = self.climbing.get(counter.metric)
        return climbing.total if climbing else None

    def after(self, report: Report) -> "Totals":
        """The totals after one more tick."""
        climbing, began_seconds = _climbed(self.climbing, report.snapshot), report.snapshot.clock.monotonic_seconds
        late_seconds = max(0.0, began_seconds - self.due_seconds) if self.due_seconds is not None else 0.0
        totals = replace(
            self,
            ticks=self.ticks + 1,
            ticks_late=self.ticks_late + (late_seconds > LATE_SECONDS),
            last_late_seconds=late_seconds,
            due_seconds=began_seconds + max(report.decision.next_tick_seconds, 2 * report.tick_seconds),
            tick_seconds=self.tick_seconds + report.tick_seconds,
            ticks_within=tuple(
                count + (report.tick_seconds <= bound)
                for count, bound in zip(self.ticks_within, TICK_BOUNDS_SECONDS, strict=True)
            ),
            climbing=climbing,
            scanner_share=self._share(report.snapshot, climbing),
            huge_cost=report.trend.huge_cost,
            monotonic_seconds=began_seconds,
            writes=_written(self.writes, report),
            foreign_writes=_foreign(self.foreign_writes, report),
        )
        for sentence in report.snapshot.problems:
            totals = totals.after_error("sensor", sentence)
        return totals

    def after_error(self, where: Where, sentence: str) -> "Totals":
        """The totals after one more error."""
        return replace(self, errors=self.errors | {where: self.errors.get(where, 0) + 1}, last_error=sentence)

    def cpu_seconds_per_saved_gib(self, snapshot: Snapshot) -> float | None:
        """The scanner's CPU seconds since the daemon started, per GiB saved now; None when either is unknown."""
        counter = self.climbing.get(CPU.metric)
        if counter is None or snapshot.saved_bytes <= 0:
            return None
        return (counter.total - counter.first) / (snapshot.saved_bytes / GIB)

    def _share(self, snapshot: Snapshot, climbing: dict[str, Climbing]) -> float | None:
        before, now = self.total(CPU), climbing.get(CPU.metric)
        if before is None or now is None or self.monotonic_seconds is None:
            return None
        elapsed_seconds = snapshot.clock.monotonic_seconds - self.monotonic_seconds
        if elapsed_seconds <= 0:
            return self.scanner_share
        share = (now.total - before) / elapsed_seconds
        if self.scanner_share is None:
            return share
        return share + (self.scanner_share - share) * math.exp(-elapsed_seconds / SHARE_WINDOW_SECONDS)


def _climbed(climbing: dict[str, Climbing], snapshot: Snapshot) -> dict[str, Climbing]:
    seen = {each.metric: value for each in KernelCounter if (value := each.value.read(snapshot)) is not None}
    fresh = {
        name: climbing[name].after(value) if name in climbing else Climbing(first=value, last=value, total=value)
        for name, value in seen.items()
    }
    return climbing | fresh


def _written(writes: dict[KnobName, dict[WriteStatus, int]], report: Report) -> dict[KnobName, dict[WriteStatus, int]]:
    counts = dict(writes)
    for result in report.outcome.results:
        of_knob = counts.get(result.write.knob, {})
        counts[result.write.knob] = of_knob | {result.status: of_knob.get(result.status, 0) + 1}
    return counts


def _foreign(foreign: dict[KnobName, int], report: Report) -> dict[KnobName, int]:
    counts = dict(foreign)
    for write in report.snapshot.foreign:
        counts[write.knob] = counts.get(write.knob, 0) + 1
    return counts
