"""What one tick tells the world: everything that is published is made from this."""

from dataclasses import dataclass

from ksmtuned_py.model import Decision, Outcome, Snapshot
from ksmtuned_py.policy.trend import Trend


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One tick: what was seen, how it is developing, what was decided, what was done."""

    snapshot: Snapshot
    trend: Trend
    decision: Decision
    outcome: Outcome
    tick_seconds: float
    """How long the tick took."""
