"""The report of one tick, from which everything that is published is made."""

from dataclasses import dataclass

from ksmtuned_py.model import Decision, Outcome, Snapshot
from ksmtuned_py.policy.trend import Trend


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One tick: what was seen, how that develops, what was decided, and what was done."""

    snapshot: Snapshot
    trend: Trend
    decision: Decision
    outcome: Outcome
    dry: bool
    """Whether the host was only watched."""
    tick_seconds: float
    """The seconds that the tick took."""
