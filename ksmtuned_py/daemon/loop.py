"""Runs the loop, which handles deadlines, signals, reload and shutdown, and nothing else."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from ksmtuned_py.config import Config, InForce
from ksmtuned_py.daemon.thrift import Thrift
from ksmtuned_py.errors import KsmtunedError, TicksFailed
from ksmtuned_py.host import Host
from ksmtuned_py.model import Wake
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.report import Report
from ksmtuned_py.tick import tick

FAILED_TICKS_MAX = 5
"""After so many failed ticks in a row the daemon puts the knobs back and exits. systemd then starts it anew."""


class Publishes(Protocol):
    """Tells the world about ticks."""

    def publish(self, report: Report) -> None:
        """Tell of a tick that was completed."""

    def failed_tick(self, error: Exception) -> None:
        """Tell of a tick that raised this error."""


class Waits(Protocol):
    """The daemon's one wait."""

    def until(self, deadline_seconds: float) -> frozenset[Wake]:
        """Wait, and return the words for what ended the wait; none at the deadline (monotonic seconds)."""


@dataclass
class Daemon:
    """Ticks until it is told to stop."""

    host: Host
    in_force: InForce
    waits: Waits
    publisher: Publishes
    reload: Callable[[], None] = lambda: None
    """Puts the new configuration in force, or leaves the old one. It tells the admin which."""
    longest_wait_seconds: float = float("inf")
    """The longest time between two ticks, which is half the watchdog's time."""

    def __post_init__(self) -> None:
        self._thrift = Thrift()
        self._told_cpu_seconds: float | None = None
        """What it took to tell of the last tick, which counts at the next; None before the first, which is dear."""

    def run(self, *, once: bool = False) -> None:
        """Tick until the wait ends with Wake.STOP, or once.

        Raises what made the single tick, or the last of five failed ticks in a row, fail.
        """
        trend, woken_by, failures = Trend.begin(self._config), frozenset[Wake](), 0
        while Wake.STOP not in woken_by:
            if Wake.RELOAD in woken_by:
                trend = self._reloaded(trend)
            began = time.monotonic()
            report = self._try_tick(trend, woken_by, last_try=once or failures + 1 >= FAILED_TICKS_MAX)
            if report is None:
                failures, pause = failures + 1, self._config.daemon.tick_seconds
            else:
                failures, pause, trend = 0, report.decision.next_tick_seconds, report.trend
            if once:
                return
            woken_by = self.waits.until(self._next_tick(began, time.monotonic(), pause))

    @property
    def _config(self) -> Config:
        return self.in_force.config

    def _reloaded(self, trend: Trend) -> Trend:
        """Reload, and return the trend to go on with.

        In another mode it begins anew, because what it remembers came of writes, or of there being none.
        """
        mode = self._config.daemon.mode
        self.reload()
        return trend if self._config.daemon.mode == mode else Trend.begin(self._config)

    def _next_tick(self, began: float, ended: float, pause: float) -> float:
        """The time at which the next tick is due (monotonic seconds).

        At least as much time is left as the last tick took, as far as the watchdog has the patience.
        """
        took = ended - began
        idle = min(took, max(0.0, self.longest_wait_seconds - took))
        return max(began + min(pause, self.longest_wait_seconds), ended + idle)

    def _try_tick(self, trend: Trend, woken_by: frozenset[Wake], *, last_try: bool) -> Report | None:
        began_cpu_seconds = time.thread_time()
        try:
            report = tick(self.host, self._config, trend, woken_by)
        except Exception as error:  # one bad tick (a sensor, a bug) must not end the daemon, but five in a row do
            self.publisher.failed_tick(error)
            if last_try and isinstance(error, KsmtunedError):
                raise TicksFailed(str(error)) from error
            if last_try:
                raise
            return None
        ended_cpu_seconds = time.thread_time()
        cpu_seconds = (self._told_cpu_seconds or 0.0) + ended_cpu_seconds - began_cpu_seconds
        pause = self._thrift.pause_after(cpu_seconds, report.trend.need, time.monotonic())
        decision = replace(report.decision, next_tick_seconds=max(pause, report.decision.next_tick_seconds))
        report = replace(report, decision=decision)
        self.publisher.publish(report)
        is_first = self._told_cpu_seconds is None
        self._told_cpu_seconds = 0.0 if is_first else time.thread_time() - ended_cpu_seconds
        return report
