"""What the doctor reads, and what it finds."""

from dataclasses import dataclass, field
from typing import Literal

from ksmtuned_py.config import Guests
from ksmtuned_py.config.doctor import Code
from ksmtuned_py.doctor.system import System
from ksmtuned_py.guests.balloon import Balloon
from ksmtuned_py.guests.cgroups import Limit
from ksmtuned_py.guests.smaps import Mapping
from ksmtuned_py.model import ForeignWrite, Guest, Snapshot

Severity = Literal["finding", "note", "accepted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that keeps memory from merging, that makes merging a risk, or that is good to know."""

    code: Code
    severity: Severity = "finding"
    """A finding is evidence that something is wrong; a note is a suspicion, or nothing wrong; accepted by the admin."""
    guest: str = ""
    """The guest's name; '' is the host."""
    sentence: str
    """The same for all guests that have it: figures are evidence."""
    evidence: str
    """What was seen, and where."""
    mend: str
    reason: str = ""
    """Why it is accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HugePages:
    """The kernel's settings for transparent huge pages. None = it has none."""

    enabled: str = "never"
    """'always', 'madvise' or 'never'."""
    max_ptes_shared: int | None = None
    max_ptes_none: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """A program that was seen running and is known to write KSM's knobs."""

    name: str
    unit: str = ""
    """The systemd unit that it is in; '' when it is in none."""
    container: str = ""
    """The cgroup of its container or pod; '' when it is in none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was read of one guest."""

    mappings: tuple[Mapping, ...] = ()
    """None when smaps could not be read."""
    balloon: Balloon | None = None
    """None when its command line does not tell."""
    obstacles: frozenset[str] = frozenset()
    """Those on its command line; libvirt's are the guest's own."""
    swapped_bytes: int = 0


NOTHING_READ = Seen()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the checks may look at."""

    ksm_path: str
    snapshot: Snapshot | None
    """None = the kernel has no KSM."""
    settings: Guests = field(default_factory=Guests)
    system: System = field(default_factory=System)
    policy: str = "adaptive"
    """policy.name."""
    daemon: str = ""
    """What our daemon says of itself, as one line; '' when none runs."""
    before: Snapshot | None = None
    """What our daemon saw last, some seconds ago; None when none runs."""
    foreign: tuple[ForeignWrite, ...] = ()
    """Knobs that somebody else wrote since our daemon's last write."""
    managers: tuple[Manager, ...] = ()
    units: tuple[str, ...] = ()
    """systemd units known to write the knobs that are active, or will be at the next boot."""
    numa_nodes: int = 1
    huge_pages: HugePages = HugePages()
    limits: tuple[Limit, ...] = ()
    """The memory cgroups that guests are in and that have a limit."""
    seen: dict[int, Seen] = field(default_factory=dict)
    """By PID."""
    scanning: bool = False
    """daemon.backend is "scan"."""
    zeros_refused: str = ""
    """Why the scan backend would not give zero pages back; '' when it would, or is not used."""
    guests_without_ksm: tuple[Guest, ...] = ()

    @property
    def guests(self) -> tuple[Guest, ...]:
        """The guests looked at."""
        return self.snapshot.guests if self.snapshot else self.guests_without_ksm
