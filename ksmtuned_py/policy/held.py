"""Hands off while somebody else writes the knobs: every policy obeys. Pure."""

from ksmtuned_py.config import Config
from ksmtuned_py.model import Decision, Knobs, Mode, Snapshot
from ksmtuned_py.policy.guards import foreign_writer
from ksmtuned_py.policy.trend import Trend


def held(now: Snapshot, trend: Trend, config: Config) -> Decision | None:
    """The decision to write nothing, when somebody else writes the knobs; else None."""
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
