"""The nouns for deciding and writing: decisions, writes, and their results."""

from dataclasses import dataclass
from enum import StrEnum

from ksmtuned_py.model.ksm import KnobName, Knobs, KnobValue


class Mode(StrEnum):
    """The ways in which the daemon uses KSM."""

    OFF = "off"
    """run=0, so nothing scans, and merged pages stay merged."""
    BOOST = "boost"
    CRUISE = "cruise"
    REST = "rest"
    """Scanning goes on, but the passes are far apart, because they find little."""
    PINNED = "pinned"
    """The knobs are what the config says."""
    HELD = "held"
    """The daemon keeps its hands off, because somebody else writes the knobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The word of one rule at this tick, whether it won or not. The verb `why` prints all of them."""

    rule: str
    fired: bool
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The knobs that a policy wants, and the reason."""

    mode: Mode
    rule: str
    """The code of the rule that won. It is one of a few fixed words, so it can be a metric label."""
    reason: str
    """The reason as one sentence, with the numbers."""
    knobs: Knobs
    """The wanted knobs; None = leave alone."""
    next_tick_seconds: float
    verdicts: tuple[Verdict, ...] = ()
    would_change: tuple[str, ...] = ()
    """Sentences on what would have to happen for another decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One step of a plan."""

    knob: KnobName
    old: KnobValue
    new: KnobValue


class WriteStatus(StrEnum):
    """The ways in which a write ends."""

    OK = "ok"
    DRY = "dry"
    """It was not tried, because we only watch."""
    PENDING = "pending"
    """It still waits for ksmd's mutex, and the next ticks check on it."""
    REFUSED = "refused"
    """The kernel refused it with EINVAL, EBUSY or EACCES."""
    LOST = "lost"
    """The kernel accepted it, but the knob reads back as something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """The result of one write."""

    write: Write
    status: WriteStatus
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HugeBack:
    """What was given back of guests' huge pages since the daemon began."""

    given: int = 0
    """The huge pages."""
    paid_bytes: int = 0
    """The merged memory that they had."""
    cpu_seconds: float = 0.0
    problem: str | None = None
    """The last reason why a guest got none; None when all got theirs."""

    def plus(self, other: "HugeBack") -> "HugeBack":
        """Both together, with the later one's problem."""
        return HugeBack(
            given=self.given + other.given,
            paid_bytes=self.paid_bytes + other.paid_bytes,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            problem=other.problem,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The results of a plan, one for each write that was tried."""

    results: tuple[WriteResult, ...] = ()
