"""The simple policies: fixed pins the knobs, ksmtuned does what the old script did. Pure."""

from dataclasses import dataclass

from ksmtuned_py.config import Config
from ksmtuned_py.model import Decision, Knobs, Mode, Snapshot, Verdict
from ksmtuned_py.policy.guards import foreign_writer
from ksmtuned_py.policy.trend import Trend


def _held(now: Snapshot, trend: Trend, config: Config) -> Decision | None:
    """Hands off, when somebody else writes the knobs; else None."""
    verdict = foreign_writer(now, trend).verdict
    if not verdict.fired:
        return None
    return Decision(
        mode=Mode.HELD,
        rule=verdict.rule,
        reason=f"hands off: {verdict.sentence}",
        knobs=Knobs(),
        next_tick_seconds=config.daemon.idle_tick_seconds,
        verdicts=(verdict,),
    )


@dataclass(frozen=True, slots=True)
class Fixed:
    """The knobs of the config, whatever happens."""

    config: Config

    def decide(self, now: Snapshot, trend: Trend) -> Decision:
        """The same every time."""
        fixed = self.config.fixed
        return _held(now, trend, self.config) or Decision(
            mode=Mode.PINNED if fixed.run else Mode.OFF,
            rule="fixed",
            reason=f"pinned by [fixed]: run={fixed.run}, {fixed.pages_to_scan} pages every {fixed.sleep_millisecs} ms",
            knobs=Knobs(
                run=fixed.run,
                pages_to_scan=fixed.pages_to_scan,
                sleep_millisecs=fixed.sleep_millisecs,
                smart_scan=fixed.smart_scan,
                advisor_mode="none",
            ),
            next_tick_seconds=self.config.daemon.idle_tick_seconds,
            would_change=("another [fixed] section, or another policy",),
        )


@dataclass(frozen=True, slots=True)
class Ksmtuned:
    """The old script's decisions; its arithmetic is in legacy.py."""

    config: Config

    def decide(self, now: Snapshot, trend: Trend) -> Decision:
        """What the script would have written at its last adjustment."""
        return _held(now, trend, self.config) or self._last_adjustment(now, trend)

    def _last_adjustment(self, now: Snapshot, trend: Trend) -> Decision:
        state = trend.ksmtuned
        wait = self._next_adjustment_seconds(now, trend)
        if not state.adjustments:
            return Decision(
                mode=Mode.OFF,
                rule="ksmtuned",
                reason=f"the first adjustment is due in {wait:.0f} s",
                knobs=Knobs(),
                next_tick_seconds=wait,
            )
        return Decision(
            mode=Mode.CRUISE if state.run else Mode.OFF,
            rule="ksmtuned",
            reason=_reason(trend),
            knobs=_knobs(trend),
            next_tick_seconds=wait,
            verdicts=(Verdict(rule="ksmtuned", fired=bool(state.run), sentence=_reason(trend)),),
            would_change=("the next adjustment, or SIGUSR1",),
        )

    def _next_adjustment_seconds(self, now: Snapshot, trend: Trend) -> float:
        began = trend.ksmtuned.adjusted_seconds
        passed = now.clock.monotonic_seconds - began if began is not None else 0.0
        left = self.config.ksmtuned.monitor_interval_seconds - passed
        return min(max(left, 0.01), self.config.daemon.idle_tick_seconds)


def _knobs(trend: Trend) -> Knobs:
    state = trend.ksmtuned
    if not state.run:
        return Knobs(run=0)
    return Knobs(run=1, pages_to_scan=state.npages, sleep_millisecs=state.sleep_ms, advisor_mode="none")


def _reason(trend: Trend) -> str:
    state = trend.ksmtuned
    return (
        f"{'on' if state.run else 'off'}: committed {state.committed_kib} KiB + threshold {state.threshold_kib} KiB "
        f"against {state.total_kib} KiB in all, {state.free_kib} KiB free"
    )
