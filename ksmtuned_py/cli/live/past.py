"""Remembers what a live screen has seen since it began, in as many readings as a curve can show. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite

from ksmtuned_py.model import Snapshot

MOST_READINGS = 240
"""More than the widest curve has places."""
ROUNDED = 0.9
"""Looks are never as far apart as they should be, so a little less than a step is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The figures of one look that are shown as curves. None = not known."""

    monotonic_seconds: float
    saved_bytes: float | None
    scanner_share: float | None
    stalled_percent: float | None
    cpus_taken_percent: float | None
    copies_a_second: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The readings since the beginning, the oldest first."""

    readings: tuple[Reading, ...] = ()
    step_seconds: float = 0.0
    """The time between two readings. It doubles when there are too many of them."""
    last: Snapshot | None = None

    def after(self, now: Snapshot) -> "Past":
        """The past after one more look. A look of which it knows already changes nothing."""
        if self.last is not None and now.clock.monotonic_seconds <= self.last.clock.monotonic_seconds:
            return replace(self, last=now)  # the same look, or the host has booted
        reading = Reading(
            monotonic_seconds=now.clock.monotonic_seconds,
            saved_bytes=now.saved_bytes,
            scanner_share=_a_second(self.last, now, lambda seen: seen.scanner_cpu_seconds),
            stalled_percent=now.pressure.some.avg10_percent if now.pressure else None,
            cpus_taken_percent=now.cpu_pressure.some.avg10_percent if now.cpu_pressure else None,
            copies_a_second=_a_second(self.last, now, lambda seen: seen.vmstat.cow_ksm),
        )
        readings = self.readings
        if readings and reading.monotonic_seconds - readings[-1].monotonic_seconds < ROUNDED * self.step_seconds:
            readings, reading = readings[:-1], _together(readings[-1], reading)
        return replace(self, readings=(*readings, reading), last=now)._thinned()

    def curve(self, value: Callable[[Reading], float | None]) -> list[float]:
        """One figure of all readings, as far as it is known."""
        return [number for each in self.readings if (number := value(each)) is not None and isfinite(number)]

    def _thinned(self) -> "Past":
        if len(self.readings) <= MOST_READINGS:
            return self
        pairs = zip(self.readings[::2], (*self.readings[1::2], self.readings[-1]), strict=False)
        kept = tuple(_together(first, second) for first, second in pairs)
        span = kept[-1].monotonic_seconds - kept[0].monotonic_seconds
        return replace(self, readings=kept, step_seconds=span / (len(kept) - 1))


def _together(first: Reading, second: Reading) -> Reading:
    """Two readings as one, at the time of the first, with the larger of each two figures."""
    return Reading(
        monotonic_seconds=first.monotonic_seconds,
        saved_bytes=_larger(first.saved_bytes, second.saved_bytes),
        scanner_share=_larger(first.scanner_share, second.scanner_share),
        stalled_percent=_larger(first.stalled_percent, second.stalled_percent),
        cpus_taken_percent=_larger(first.cpus_taken_percent, second.cpus_taken_percent),
        copies_a_second=_larger(first.copies_a_second, second.copies_a_second),
    )


def _larger(first: float | None, second: float | None) -> float | None:
    return max((number for number in (first, second) if number is not None), default=None)


def _a_second(before: Snapshot | None, now: Snapshot, count: Callable[[Snapshot], float | None]) -> float | None:
    """The growth of a count in each second since the last look; None when that is not known."""
    first, last = None if before is None else count(before), count(now)
    if before is None or first is None or last is None:
        return None
    return max(0.0, last - first) / (now.clock.monotonic_seconds - before.clock.monotonic_seconds)


def resampled(values: Iterable[float], width: int) -> list[float]:
    """The values as so many at most. Each is the largest of those in its place, so that no peak is lost."""
    values = list(values)
    if len(values) <= width:
        return values
    bounds = [place * len(values) // width for place in range(width + 1)]
    return [max(values[begin:end]) for begin, end in pairwise(bounds)]
