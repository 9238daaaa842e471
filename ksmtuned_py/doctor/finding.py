"""The facts that the doctor reads, and its findings."""

from dataclasses import dataclass, field
from typing import Literal

from ksmtuned_py.config import Guests
from ksmtuned_py.config.doctor import Code
from ksmtuned_py.doctor.system import System
from ksmtuned_py.errors import HiddenKsm
from ksmtuned_py.guests.balloon import Balloon
from ksmtuned_py.guests.cgroups import Limit
from ksmtuned_py.guests.hugepages import HugePages
from ksmtuned_py.guests.smaps import Smap
from ksmtuned_py.model import ForeignWrite, Guest, Snapshot

Severity = Literal["finding", "note", "accepted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that keeps memory from merging, that makes merging a risk, or that is good to know."""

    code: Code
    severity: Severity = "finding"
    """A "finding" has evidence that something is wrong. A "note" is a suspicion, or nothing wrong.

    An "accepted" one is wanted so by the admin.
    """
    guest: str = ""
    """The guest's name; '' for the host."""
    sentence: str
    """The finding as a sentence, the same for all guests that have it. Figures are in the evidence."""
    evidence: str
    """The observation, and where it was made."""
    mend: str
    reason: str = ""
    """The admin's reason for accepting it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """A program that was seen running and is known to write KSM's knobs."""

    name: str
    unit: str = ""
    """The systemd unit of the program; '' when it has none."""
    container: str = ""
    """The cgroup of its container or pod; '' when it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The facts that were read of one guest."""

    mappings: tuple[Smap, ...] = ()
    """All mappings of the guest; empty when smaps could not be read."""
    balloon: Balloon | None = None
    """The ways in which it hands free memory back; None when its command line does not tell."""
    obstacles: frozenset[str] = frozenset()
    """The obstacles on its command line. Those of its libvirt domain are in Guest.obstacles."""
    swapped_bytes: int = 0


NOTHING_READ = Seen()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All the facts that the checks go by."""

    ksm_path: str
    snapshot: Snapshot | None
    """The host as it was seen; None = the kernel has no KSM."""
    hidden_ksm: HiddenKsm | None = None
    """Why nobody can tell whether the kernel has KSM; None where it can be told."""
    settings: Guests = field(default_factory=Guests)
    system: System = field(default_factory=System)
    policy: str = "adaptive"
    """The value of policy.name."""
    holds_khugepaged: bool = False
    """Our daemon keeps khugepaged from undoing merging while memory is needed, and lets it while that is plenty."""
    daemon: str = ""
    """The line that our daemon says of itself; '' when none runs."""
    before: Snapshot | None = None
    """The snapshot that our daemon took last, some seconds ago; None when none runs."""
    foreign: tuple[ForeignWrite, ...] = ()
    """The knobs that somebody else wrote since our daemon's last write."""
    managers: tuple[Manager, ...] = ()
    units: tuple[str, ...] = ()
    """Systemd units that are known to write the knobs, and are active or will be at the next boot."""
    numa_nodes: int = 1
    huge_pages: HugePages = field(default_factory=HugePages)
    limits: tuple[Limit, ...] = ()
    """The limits of the memory cgroups that guests are in."""
    seen: dict[int, Seen] = field(default_factory=dict)
    """The facts of each guest, by PID."""
    scanning: bool = False
    """The value of daemon.backend is "scan"."""
    zeros_refused: str | None = None
    """Why the scan backend would not give pages of zeros back; None when it would, or is not used."""
    guests_without_ksm: tuple[Guest, ...] = ()

    @property
    def guests(self) -> tuple[Guest, ...]:
        """The guests that were found."""
        return self.snapshot.guests if self.snapshot else self.guests_without_ksm
