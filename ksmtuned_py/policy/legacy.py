"""The arithmetic of the shell script ksmtuned (2009-2018), bit for bit: integers, KiB, and its odd constant. Pure."""

from dataclasses import dataclass, replace

from ksmtuned_py.config import Ksmtuned
from ksmtuned_py.model import Guest, Snapshot
from ksmtuned_py.units import KIB

REFERENCE_KIB = 16 * KIB * KIB
"""KSM_SLEEP_MSEC is meant for a host of 16 GiB."""
SLEEP_MIN_MS = 10
MACHINE_KINDS = frozenset({"qemu"})
"""The script knows no other virtual machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KsmtunedState:
    """The script's variables between two adjustments."""

    npages: int = 0
    run: int = 0
    sleep_ms: int = SLEEP_MIN_MS
    total_kib: int = 0
    free_kib: int = 0
    committed_kib: int = 0
    threshold_kib: int = 0
    adjusted_seconds: float | None = None
    """When it last adjusted, or started: the first adjustment is one interval later."""
    adjustments: int = 0

    def after(self, snapshot: Snapshot, settings: Ksmtuned) -> "KsmtunedState":
        """With one more snapshot: unchanged until the interval is over or somebody asks (SIGUSR1)."""
        now = snapshot.clock.monotonic_seconds
        if self.adjusted_seconds is None:
            return replace(self, adjusted_seconds=now)
        if now - self.adjusted_seconds < settings.monitor_interval_seconds and "asked" not in snapshot.woken_by:
            return self
        adjusted = self.adjust(
            total_kib=snapshot.memory.total_bytes // KIB,
            free_kib=(snapshot.memory.free_bytes + snapshot.memory.buffers_bytes + snapshot.memory.cached_bytes) // KIB,
            committed_kib=committed_kib(snapshot.guests),
            settings=settings,
        )
        return replace(adjusted, adjusted_seconds=now)

    def adjust(self, *, total_kib: int, free_kib: int, committed_kib: int, settings: Ksmtuned) -> "KsmtunedState":
        """One run of the script's adjust()."""
        threshold_kib = max(total_kib * int(settings.thres_coef_percent) // 100, settings.thres_const_kib)
        state = replace(
            self,
            total_kib=total_kib,
            free_kib=free_kib,
            committed_kib=committed_kib,
            threshold_kib=threshold_kib,
            sleep_ms=max(SLEEP_MIN_MS, settings.sleep_msec * REFERENCE_KIB // total_kib),
            adjustments=self.adjustments + 1,
        )
        if committed_kib + threshold_kib < total_kib and free_kib > threshold_kib:
            return replace(state, run=0)
        step = settings.npages_boost if free_kib < threshold_kib else settings.npages_decay
        return replace(state, run=1, npages=min(max(self.npages + step, settings.npages_min), settings.npages_max))


def committed_kib(guests: tuple[Guest, ...]) -> int:
    """The script's idea of committed memory: the sum of resident sizes, which counts shared pages in full."""
    return sum(guest.rss_bytes for guest in guests if guest.kind in MACHINE_KINDS) // KIB
