"""Keeps the daemon's last changes of mind. Pure."""

from dataclasses import dataclass

from ksmtuned_py.model import Mode
from ksmtuned_py.report import Report

MOST_CHANGES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A tick at which another mode or another rule won."""

    unix_seconds: float
    mode: Mode
    rule: str
    reason: str
    """The reason in that moment, as one sentence."""


def changes_after(changes: tuple[Change, ...], report: Report) -> tuple[Change, ...]:
    """The last changes after one more tick, the newest first."""
    decision = report.decision
    if changes and (changes[0].mode, changes[0].rule) == (decision.mode, decision.rule):
        return changes
    now_seconds = report.snapshot.clock.unix_seconds
    change = Change(unix_seconds=now_seconds, mode=decision.mode, rule=decision.rule, reason=decision.reason)
    return (change, *changes)[:MOST_CHANGES]
