"""The kernel's rising counters, each once with its help and its reader, and how they are made to climb only. Pure.

The totals add up every member, and the catalogue shows every member. So no counter is shown that nobody reads, and none
is read that nobody shows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ksmtuned_py.model import Snapshot


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


@dataclass(frozen=True, slots=True)
class _Source:
    """What a metric says of itself, and what it reads in its own unit; None where the kernel does not say."""

    help: str
    read: Callable[[Snapshot], float | None]


class KernelCounter(Enum):
    """The counters, by the names of their metrics."""

    KSM_FULL_SCANS = _Source("Passes of the scanner over all candidate memory", lambda now: now.counters.full_scans)
    KSM_PAGES_SCANNED = _Source("Pages the scanner has read", lambda now: now.counters.pages_scanned)
    KSM_PAGES_SKIPPED = _Source("Pages smart_scan has skipped", lambda now: now.counters.pages_skipped)
    SCANNER_CPU_SECONDS = _Source("CPU time of ksmd, or of the scan worker", lambda now: now.scanner_cpu_seconds)
    SOME_STALL_SECONDS = _Source(
        "Some tasks waited", lambda now: now.pressure.some.total_seconds if now.pressure else None
    )
    FULL_STALL_SECONDS = _Source(
        "All tasks waited", lambda now: now.pressure.full.total_seconds if now.pressure else None
    )
    VMSTAT_COW_KSM = _Source("Writes that broke a merged page", lambda now: now.vmstat.cow_ksm)
    VMSTAT_KSM_SWPIN_COPY = _Source("Pages copied at swap-in because of KSM", lambda now: now.vmstat.ksm_swpin_copy)
    VMSTAT_SWPIN_ZERO = _Source("Zero pages brought back without swap traffic", lambda now: now.vmstat.swpin_zero)
    VMSTAT_SWPOUT_ZERO = _Source("Zero pages dropped without swap traffic", lambda now: now.vmstat.swpout_zero)
    VMSTAT_PSWPIN = _Source("Pages swapped in", lambda now: now.vmstat.pswpin)
    VMSTAT_PSWPOUT = _Source("Pages swapped out", lambda now: now.vmstat.pswpout)
    VMSTAT_OOM_KILL = _Source("Processes killed for lack of memory", lambda now: now.vmstat.oom_kill)
    VMSTAT_THP_COLLAPSE_ALLOC = _Source(
        "Huge pages allocated to collapse small ones", lambda now: now.vmstat.thp_collapse_alloc
    )
    VMSTAT_THP_SPLIT_PAGE = _Source("Huge pages split, by merging or by reclaim", lambda now: now.vmstat.thp_split_page)

    @property
    def metric(self) -> str:
        """The name of its metric, without prefix and suffix."""
        return self.name.lower()


PASSES = KernelCounter.KSM_FULL_SCANS
STALLS = {"some": KernelCounter.SOME_STALL_SECONDS, "full": KernelCounter.FULL_STALL_SECONDS}
"""Those that are one metric with a label for the tasks."""
