"""The arithmetic of oVirt's Memory Overcommitment Manager (0.6.5): floats, cut off when they are written. Pure."""

from dataclasses import dataclass, replace

from ksmtuned_py.config import Config
from ksmtuned_py.config.peers import Mom
from ksmtuned_py.model import Run, Snapshot
from ksmtuned_py.policy.peers.periodic import REFERENCE_KIB, Periodic, Rate, free_kib, virtual_kib
from ksmtuned_py.units import KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class MomState(Periodic):
    """Its samples; what it set last it reads back from the kernel."""

    free_kib: tuple[int, ...] = ()
    """Samples, the newest last."""
    sample_due_seconds: float | None = None

    @property
    def wake_seconds(self) -> float:
        """The time of the next sample or adjustment, whichever comes first."""
        assert self.due_seconds is not None  # a decision is only made after a snapshot
        return self.due_seconds if self.sample_due_seconds is None else min(self.due_seconds, self.sample_due_seconds)

    def after(self, now: Snapshot, config: Config) -> "MomState":
        """The state after one more snapshot, with a sample or an adjustment where one is due."""
        settings = config.mom
        sampled = self._with_sample(now, settings)
        if self.due_seconds is None:
            return sampled.due_after(now, settings.monitor_interval_seconds)
        if not self.is_due(now):
            return sampled
        rate = adjust(
            now.knobs.pages_to_scan or 0,
            total_kib=now.memory.total_bytes // KIB,
            free_kib=sum(sampled.free_kib) / len(sampled.free_kib),
            committed_kib=virtual_kib(now.guests),
            settings=settings,
        )
        return replace(sampled, rate=rate).due_after(now, settings.monitor_interval_seconds)

    def _with_sample(self, now: Snapshot, settings: Mom) -> "MomState":
        seconds = now.clock.monotonic_seconds
        if self.sample_due_seconds is not None and seconds < self.sample_due_seconds:
            return self
        return replace(
            self,
            free_kib=(*self.free_kib, free_kib(now))[-settings.samples :],
            sample_due_seconds=seconds + settings.sample_interval_seconds,
        )


def adjust(pages_to_scan: int, *, total_kib: int, free_kib: float, committed_kib: int, settings: Mom) -> Rate:
    """One evaluation of its KSM rules."""
    threshold_kib = total_kib * (settings.free_percent / 100)
    rate = Rate(
        run=Run.STOP,
        pages_to_scan=pages_to_scan,
        sleep_millisecs=max(settings.sleep_min_msec, int(settings.sleep_msec * REFERENCE_KIB / total_kib)),
        sentence=f"committed {committed_kib} KiB + threshold {threshold_kib:.0f} KiB against {total_kib} KiB in all, "
        f"{free_kib:.0f} KiB free on average",
    )
    if threshold_kib + committed_kib < total_kib and free_kib > threshold_kib:
        return rate
    pages = pages_to_scan + (settings.npages_boost if free_kib < threshold_kib else settings.npages_decay)
    return replace(rate, run=Run.MERGE, pages_to_scan=max(min(pages, settings.npages_max), settings.npages_min))
