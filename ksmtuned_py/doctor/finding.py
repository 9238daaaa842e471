"""What the doctor reads, and what it finds."""

from dataclasses import dataclass, field

from ksmtuned_py.config import Guests
from ksmtuned_py.guests.balloon import Balloon
from ksmtuned_py.guests.smaps import Mapping
from ksmtuned_py.model import Guest, Snapshot

HOST = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that keeps memory from merging, that makes merging a risk, or that is good to know."""

    code: str
    """A few fixed words, for programs."""
    subject: str = HOST
    """'host', or the guest's name."""
    sentence: str
    evidence: str
    """What was seen, and where."""
    mend: str
    note: bool = False
    """Nothing is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HugePages:
    """The kernel's settings for transparent huge pages. None = it has none."""

    enabled: str = "never"
    """'always', 'madvise' or 'never'."""
    max_ptes_shared: int | None = None
    max_ptes_none: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the checks may look at."""

    ksm_path: str
    snapshot: Snapshot | None
    """None = the kernel has no KSM."""
    settings: Guests = field(default_factory=Guests)
    daemon: str = ""
    """What our daemon says of itself, as one line; '' when none runs."""
    suspects: tuple[str, ...] = ()
    """Programs seen running that are known to write KSM's knobs."""
    units: tuple[str, ...] = ()
    """systemd units known to write them that are active, or will be at the next boot."""
    numa_nodes: int = 1
    huge_pages: HugePages = HugePages()
    mappings: dict[int, list[Mapping]] = field(default_factory=dict)
    """By PID, of the guests whose smaps could be read."""
    balloons: dict[int, Balloon] = field(default_factory=dict)
    """By PID, of the virtual machines whose command lines tell."""
    scanning: bool = False
    """daemon.backend is "scan"."""
    zeros_refused: str = ""
    """Why the scan backend would not give zero pages back; '' when it would, or is not used."""
    guests_without_ksm: tuple[Guest, ...] = ()

    @property
    def guests(self) -> tuple[Guest, ...]:
        """The guests looked at."""
        return self.snapshot.guests if self.snapshot else self.guests_without_ksm
