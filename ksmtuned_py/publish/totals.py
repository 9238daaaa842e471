"""Counts what has happened since the daemon started. It is pure, every tick advances it, and all surfaces show it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

from ksmtuned_py.model import KnobName, Snapshot, Vmstat, WriteStatus
from ksmtuned_py.policy.hugepages import HugeCost
from ksmtuned_py.report import Report
from ksmtuned_py.units import GIB

TICK_BOUNDS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)
SHARE_WINDOW_SECONDS = 60.0
"""The time over which scanner_share is averaged, long enough for the gap between two passes in cruise."""


def _vmstat(name: str) -> Callable[[Snapshot], float | None]:
    def value(snapshot: Snapshot) -> float | None:
        count: int | None = getattr(snapshot.vmstat, name)
        return count

    return value


KERNEL_COUNTERS: dict[str, Callable[[Snapshot], float | None]] = {
    "ksm_full_scans": lambda snapshot: snapshot.counters.full_scans,
    "ksm_pages_scanned": lambda snapshot: snapshot.counters.pages_scanned,
    "ksm_pages_skipped": lambda snapshot: snapshot.counters.pages_skipped,
    "scanner_cpu_seconds": lambda snapshot: snapshot.scanner_cpu_seconds,
    "some_stall_seconds": lambda snapshot: snapshot.pressure and snapshot.pressure.some.total_seconds,
    "full_stall_seconds": lambda snapshot: snapshot.pressure and snapshot.pressure.full.total_seconds,
} | {f"vmstat_{each.name}": _vmstat(each.name) for each in fields(Vmstat)}
"""The kernel's rising counters by metric name, in the metric's unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Climbing:
    """A kernel counter made to climb only. run=2 zeroes full_scans, and a new scan worker zeroes its CPU time."""

    first: float
    """The counter's value when the daemon started."""
    last: float
    total: float

    def after(self, value: float) -> "Climbing":
        """The counter after one more reading. A value below the last one was counted since a reset."""
        gained = value - self.last if value >= self.last else value
        return Climbing(first=self.first, last=value, total=self.total + gained)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over all ticks."""

    ticks: int = 0
    tick_seconds: float = 0.0
    ticks_within: tuple[int, ...] = (0,) * len(TICK_BOUNDS_SECONDS)
    """The ticks that took at most so long, one count for each of TICK_BOUNDS_SECONDS."""
    climbing: dict[str, Climbing] = field(default_factory=dict)
    """The counters of KERNEL_COUNTERS that this kernel has."""
    scanner_share: float | None = None
    """The scanner's CPU lately as a share of one core, a decaying mean over SHARE_WINDOW_SECONDS."""
    huge_cost: HugeCost = field(default_factory=HugeCost)
    """What merging has cost in huge pages so far."""
    monotonic_seconds: float | None = None
    """The time of the last report's snapshot."""
    writes: dict[KnobName, dict[WriteStatus, int]] = field(default_factory=dict)
    foreign_writes: dict[KnobName, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    """Errors by place: 'tick' (a tick that failed), 'sensor', 'publish'. Writes that failed are in `writes`."""
    last_error: str = ""

    def total(self, name: str) -> float | None:
        """The value of one of KERNEL_COUNTERS; None when the kernel has never shown it."""
        counter = self.climbing.get(name)
        return counter.total if counter else None

    def after(self, report: Report) -> "Totals":
        """The totals after one more tick."""
        climbing = _climbed(self.climbing, report.snapshot)
        totals = replace(
            self,
            ticks=self.ticks + 1,
            tick_seconds=self.tick_seconds + report.tick_seconds,
            ticks_within=tuple(
                count + (report.tick_seconds <= bound)
                for count, bound in zip(self.ticks_within, TICK_BOUNDS_SECONDS, strict=True)
            ),
            climbing=climbing,
            scanner_share=self._share(report.snapshot, climbing),
            huge_cost=report.trend.huge_cost,
            monotonic_seconds=report.snapshot.clock.monotonic_seconds,
            writes=_written(self.writes, report),
            foreign_writes=_foreign(self.foreign_writes, report),
        )
        for sentence in report.snapshot.problems:
            totals = totals.after_error("sensor", sentence)
        return totals

    def after_error(self, where: str, sentence: str) -> "Totals":
        """The totals after one more error."""
        return replace(self, errors=self.errors | {where: self.errors.get(where, 0) + 1}, last_error=sentence)

    def cpu_seconds_per_saved_gib(self, snapshot: Snapshot) -> float | None:
        """The scanner's CPU seconds since the daemon started, per GiB saved now; None when either is unknown."""
        counter = self.climbing.get("scanner_cpu_seconds")
        if counter is None or snapshot.saved_bytes <= 0:
            return None
        return (counter.total - counter.first) / (snapshot.saved_bytes / GIB)

    def _share(self, snapshot: Snapshot, climbing: dict[str, Climbing]) -> float | None:
        before, now = self.total("scanner_cpu_seconds"), climbing.get("scanner_cpu_seconds")
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
    seen = {name: value for name, read in KERNEL_COUNTERS.items() if (value := read(snapshot)) is not None}
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
