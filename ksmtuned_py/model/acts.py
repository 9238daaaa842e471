"""What is wanted, why, and what became of it."""

from dataclasses import dataclass
from enum import StrEnum

from ksmtuned_py.model.ksm import KnobName, Knobs, KnobValue


class Mode(StrEnum):
    """What the daemon is doing with KSM."""

    OFF = "off"
    """run=0: nothing scans; what is merged stays merged."""
    BOOST = "boost"
    CRUISE = "cruise"
    REST = "rest"
    """Scanning goes on, but the passes are far apart, because they find little."""
    PINNED = "pinned"
    """The knobs are what the config says."""
    HELD = "held"
    """Hands off: somebody else writes the knobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one rule said this tick, whether it won or not; `why` prints them all."""

    rule: str
    fired: bool
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a policy wants, and why."""

    mode: Mode
    rule: str
    """The code of the rule that won: a few fixed words, good as a metric label."""
    reason: str
    """One sentence with the numbers."""
    knobs: Knobs
    """Wanted; None = leave alone."""
    next_tick_seconds: float
    verdicts: tuple[Verdict, ...] = ()
    would_change: tuple[str, ...] = ()
    """What would have to happen for another decision, as sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One step of a plan."""

    knob: KnobName
    old: KnobValue
    new: KnobValue


class WriteStatus(StrEnum):
    """How a write ended."""

    OK = "ok"
    DRY = "dry"
    """Not tried: we only watch."""
    PENDING = "pending"
    """Still waiting for ksmd's mutex; the next ticks look after it."""
    REFUSED = "refused"
    """The kernel said EINVAL, EBUSY or EACCES."""
    LOST = "lost"
    """It was accepted, but reads back as something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """What became of one step of a plan."""

    write: Write
    status: WriteStatus
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a plan: one result for each write that was tried."""

    results: tuple[WriteResult, ...] = ()
