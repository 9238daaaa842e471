"""Keeps the daemon's own ticks cheap on a host of hundreds of guests, where each look at them is dear."""

from ksmtuned_py.policy.need import Need

SHARE = 0.0125
"""The share of one core that ticks may take of the loop's thread. To look at 500 guests takes it about 25 ms."""
BURST_CPU_SECONDS = 0.25
"""What they may take at once beyond that: the first tick, or those of a short boost."""
PAUSE_MAX_SECONDS = 10.0
"""The longest time between two ticks for that."""


class Thrift:
    """Counts what ticks took beyond their share."""

    def __init__(self) -> None:
        self._beyond_cpu_seconds = 0.0
        self._seconds: float | None = None

    def pause_after(self, cpu_seconds: float, need: Need, now_seconds: float) -> float:
        """The least time between the tick that took so much CPU and the next one; 0 while memory is short."""
        earned = SHARE * (now_seconds - self._seconds) if self._seconds is not None else 0.0
        self._seconds = now_seconds
        most = BURST_CPU_SECONDS + PAUSE_MAX_SECONDS * SHARE
        self._beyond_cpu_seconds = min(max(0.0, self._beyond_cpu_seconds - earned) + cpu_seconds, most)
        if need >= Need.SHORT:
            return 0.0
        return max(0.0, (self._beyond_cpu_seconds - BURST_CPU_SECONDS) / SHARE)
