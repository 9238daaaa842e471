"""What every policy obeys: hands off while somebody else writes the knobs, and no scanning in a pause. Pure.

Where nothing merges, no policy is asked.
"""

from ksmtuned_py.config import Config
from ksmtuned_py.model import Decision, Knobs, Mode, Run, Snapshot, Verdict
from ksmtuned_py.policy.guards import Ceiling, foreign_writer, paused
from ksmtuned_py.policy.trend import Trend


def overruled(now: Snapshot, trend: Trend, config: Config) -> Decision | None:
    """The decision to write nothing when somebody else writes the knobs, or to stop in a pause; else None."""
    guard = next((each for each in (foreign_writer(now, trend), paused(now)) if each.verdict.fired), None)
    if guard is None:
        return None
    hands_off = guard.ceiling is Ceiling.NO_WRITE
    return Decision(
        mode=Mode.HELD if hands_off else Mode.OFF,
        rule=guard.verdict.rule,
        reason=f"{'hands off' if hands_off else 'off'}: {guard.verdict.sentence}",
        knobs=Knobs() if hands_off else Knobs(run=Run.STOP),
        next_tick_seconds=before_pause_ends(now, config.daemon.idle_tick_seconds),
        verdicts=(guard.verdict,),
    )


def nothing_merges(config: Config) -> Decision:
    """The decision where there is nothing to steer: a kernel without KSM, or a container that does not show it."""
    sentence = "nothing on this host merges memory; ksmtuned-py doctor tells why"
    return Decision(
        mode=Mode.OFF,
        rule="no_merger",
        reason=f"off: {sentence}",
        knobs=Knobs(),
        next_tick_seconds=config.daemon.idle_tick_seconds,
        verdicts=(Verdict(rule="no_merger", fired=True, sentence=sentence),),
        would_change=("a start where KSM is in sight, or with the libraries of the scan backend",),
    )


def before_pause_ends(now: Snapshot, seconds: float) -> float:
    """The time to the next tick, not beyond the end of a pause."""
    return min(seconds, max(now.pause_left_seconds, 0.01)) if now.pause else seconds
