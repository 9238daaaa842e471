"""Sorts findings: drops symptoms of a cause, marks what an admin accepts, and joins guests with the same. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from ksmtuned_py.config.doctor import Accept, Code
from ksmtuned_py.doctor.finding import Finding, Severity
from ksmtuned_py.guests.names import is_called
from ksmtuned_py.model import Guest

_SCANNED: frozenset[Code] = frozenset({"not_yet_scanned", "nothing_equal", "losing"})
_ASKED: frozenset[Code] = frozenset({"not_mergeable", "memory_not_mergeable"})
_MADE: frozenset[Code] = frozenset({"encrypted", "vfio", "nvme", "vdpa", "shared", "hugetlb", "locked", "huge_pages"})

SYMPTOMS: dict[Code, frozenset[Code]] = {
    "uksm": frozenset({"ksm_absent"}),
    "nobody": frozenset({"old_kernel"}),
    "knobs_contested": frozenset({"advisor_on", "foreign_writer", "foreign_service"}),
}
"""The symptoms on the host of each cause on the host."""
SYMPTOMS_IN_GUESTS: dict[Code, frozenset[Code]] = {
    "ksm_absent": _SCANNED | _ASKED | {"no_account", "huge_pages"},
    "uksm": _SCANNED | _ASKED | {"no_account", "huge_pages"},
    "ksm_off": frozenset({"not_yet_scanned"}),
}
"""The symptoms in every guest of each cause on the host."""
SYMPTOMS_IN_ITSELF: dict[Code, frozenset[Code]] = {
    "switched_off": _SCANNED | _ASKED | _MADE | {"in_swap", "nosharepages"},
    "nosharepages": _SCANNED | _ASKED | _MADE | {"in_swap"},
    "encrypted": _SCANNED | _ASKED | (_MADE - {"encrypted"}) | {"in_swap"},
    "vfio": _SCANNED | {"locked", "huge_pages"},
    "nvme": _SCANNED | {"vfio", "locked", "huge_pages"},
    "vdpa": _SCANNED | {"locked", "huge_pages"},
    "shared": _SCANNED | _ASKED | {"huge_pages"},
    "hugetlb": _SCANNED | _ASKED | {"huge_pages"},
    "not_mergeable": frozenset({"memory_not_mergeable", "not_yet_scanned", "huge_pages", "in_swap"}),
    "in_swap": frozenset({"nothing_equal", "losing"}),
    "cgroup_debt": frozenset(),
}
"""The symptoms in a guest of each cause in that guest."""
SHOWN_NAMES = 3


@dataclass(frozen=True, slots=True)
class Block:
    """A finding with all the guests that have it."""

    first: Finding
    guests: tuple[str, ...]
    """The names of the guests; () for the host."""

    @property
    def subject(self) -> str:
        """The words for whose finding it is, as 'host', 'web', or '16 guests (web-1, web-2, web-3 and 13 more)'."""
        if len(self.guests) < 2:
            return self.guests[0] if self.guests else "host"
        return f"{len(self.guests)} guests ({_first(self.guests)})"


def _first(names: Sequence[str]) -> str:
    """The first names and the number of the others, as 'web-1, web-2, web-3 and 13 more'."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def found_by(guests: Sequence[Guest]) -> str:
    """The words for the evidence, as '3 guests: 2 by program and libvirt (web, db), 1 by flag (netdata-77)'."""
    same: dict[str, list[str]] = {}
    for guest in guests:
        same.setdefault(" and ".join(guest.evidence) or "nothing told", []).append(guest.name)
    parts = ", ".join(f"{len(names)} by {evidence} ({_first(names)})" for evidence, names in same.items())
    return f"{len(guests)} guest{'s' if len(guests) > 1 else ''}: {parts}"


def causes(findings: Iterable[Finding]) -> list[Finding]:
    """The findings without mere symptoms of others. A symptom beside its cause gives advice that does not help."""
    all_of_them = list(findings)
    on_host = {finding.code for finding in all_of_them if not finding.guest}
    return [finding for finding in all_of_them if not _follows(finding, all_of_them, on_host)]


def _follows(finding: Finding, others: Sequence[Finding], on_host: set[Code]) -> bool:
    if not finding.guest:
        return any(finding.code in SYMPTOMS.get(code, ()) for code in on_host)
    in_itself = {other.code for other in others if other.guest == finding.guest and _explains(other)}
    return any(finding.code in SYMPTOMS_IN_GUESTS.get(code, ()) for code in on_host) or any(
        finding.code in SYMPTOMS_IN_ITSELF.get(code, ()) for code in in_itself
    )


def _explains(finding: Finding) -> bool:
    """Whether a finding explains others. A note that a part of the memory is shared explains nothing."""
    return finding.severity == "finding" or finding.code in ("switched_off", "nosharepages")


def accepted(findings: Iterable[Finding], accept: Sequence[Accept], guests: Iterable[Guest] = ()) -> list[Finding]:
    """The findings, with those that the admin accepts marked. An admin may give any of a guest's names."""
    known = {guest.name: guest for guest in guests}
    return [_accepted(finding, accept, known.get(finding.guest)) for finding in findings]


def _accepted(finding: Finding, accept: Sequence[Accept], guest: Guest | None) -> Finding:
    for one in accept:
        meant = is_called(guest, one.guest) if guest else fnmatchcase(finding.guest, one.guest)
        if one.code == finding.code and meant:
            return replace(finding, severity="accepted", reason=one.reason)
    return finding


def blocks(findings: Iterable[Finding]) -> list[Block]:
    """The findings as blocks, one for all guests with the same: findings first, then notes, then accepted ones."""
    found: dict[tuple[str, ...], list[Finding]] = {}
    for finding in findings:
        whose = "guest" if finding.guest else finding.evidence
        key = (whose, finding.code, finding.severity, finding.sentence, finding.mend, finding.reason)
        found.setdefault(key, []).append(finding)
    order: dict[Severity, int] = {"finding": 0, "note": 1, "accepted": 2}
    return sorted(
        (Block(same[0], tuple(each.guest for each in same if each.guest)) for same in found.values()),
        key=lambda block: order[block.first.severity],
    )
