"""The arithmetic of the shell script ksmtuned (2009-2018), bit for bit: integers, KiB, and its odd constant. Pure."""

from dataclasses import dataclass, replace

from ksmtuned_py.config import Config
from ksmtuned_py.config.peers import Ksmtuned
from ksmtuned_py.model import Run, Snapshot
from ksmtuned_py.policy.peers.periodic import REFERENCE_KIB, Periodic, Rate, clamp, free_kib, resident_kib
from ksmtuned_py.units import KIB

SLEEP_MIN_MS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptState(Periodic):
    """The script's variables between two adjustments; the first adjustment is one interval after its start."""

    npages: int = 0
    """Kept while KSM is off, and never read back."""

    def after(self, now: Snapshot, config: Config) -> "ScriptState":
        """The state after one more snapshot: unchanged until it is time to adjust."""
        settings = config.ksmtuned
        if self.due_seconds is None:
            return self.due_after(now, settings.monitor_interval_seconds)
        if not self.is_due(now):
            return self
        rate = adjust(
            self.npages,
            total_kib=now.memory.total_bytes // KIB,
            free_kib=free_kib(now),
            committed_kib=resident_kib(now.guests),
            settings=settings,
        )
        adjusted = replace(self, rate=rate, npages=rate.pages_to_scan)
        return adjusted.due_after(now, settings.monitor_interval_seconds)


def adjust(npages: int, *, total_kib: int, free_kib: int, committed_kib: int, settings: Ksmtuned) -> Rate:
    """One run of the script's adjust()."""
    threshold_kib = max(total_kib * int(settings.thres_coef_percent) // 100, settings.thres_const_kib)
    rate = Rate(
        run=Run.STOP,
        pages_to_scan=npages,
        sleep_millisecs=max(SLEEP_MIN_MS, settings.sleep_msec * REFERENCE_KIB // total_kib),
        sentence=f"committed {committed_kib} KiB + threshold {threshold_kib} KiB against {total_kib} KiB in all, "
        f"{free_kib} KiB free",
    )
    if committed_kib + threshold_kib < total_kib and free_kib > threshold_kib:
        return rate
    step = settings.npages_boost if free_kib < threshold_kib else settings.npages_decay
    return replace(rate, run=Run.MERGE, pages_to_scan=clamp(npages + step, settings.npages_min, settings.npages_max))
