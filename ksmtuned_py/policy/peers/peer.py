"""The policies that do what an old manager did: its arithmetic is in shellscript, mom or kubevirt. Pure."""

from ksmtuned_py.config import Config
from ksmtuned_py.model import Decision, Knobs, Mode, Run, Snapshot, Verdict
from ksmtuned_py.policy.overruled import overruled
from ksmtuned_py.policy.peers.periodic import Periodic, Rate
from ksmtuned_py.policy.trend import Trend

WAIT_MIN_SECONDS = 0.01


def decide(now: Snapshot, trend: Trend, state: Periodic, config: Config) -> Decision:
    """What the manager set at its last adjustment is wanted until its next."""
    return overruled(now, trend, config) or _as_adjusted(now, state, config)


def _as_adjusted(now: Snapshot, state: Periodic, config: Config) -> Decision:
    name, rate = config.policy.name, state.rate
    wait = min(
        max(state.wake_seconds - now.clock.monotonic_seconds, WAIT_MIN_SECONDS),
        config.daemon.idle_tick_seconds,
    )
    if rate is None:
        reason = f"the first adjustment of {name} is still to come"
        return Decision(mode=Mode.OFF, rule=name, reason=reason, knobs=Knobs(), next_tick_seconds=wait)
    return Decision(
        mode=Mode.CRUISE if rate.run else Mode.OFF,
        rule=name,
        reason=f"{'on' if rate.run else 'off'}: {rate.sentence}",
        knobs=_knobs(rate),
        next_tick_seconds=wait,
        verdicts=(Verdict(rule=name, fired=bool(rate.run), sentence=rate.sentence),),
        would_change=("the next adjustment, or SIGUSR1",),
    )


def _knobs(rate: Rate) -> Knobs:
    if rate.run is Run.STOP:
        return Knobs(run=Run.STOP)
    return Knobs(
        run=Run.MERGE, pages_to_scan=rate.pages_to_scan, sleep_millisecs=rate.sleep_millisecs, advisor_mode="none"
    )
