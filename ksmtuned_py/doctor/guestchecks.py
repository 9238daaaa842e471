"""What in one guest keeps its memory from merging. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ksmtuned_py.doctor.finding import Facts, Finding
from ksmtuned_py.guests.smaps import Mapping
from ksmtuned_py.model import Guest, GuestKsm, Snapshot
from ksmtuned_py.units import MIB, human_bytes, human_percent

LARGE_BYTES = 16 * MIB
"""Smaller mappings are libraries, heaps and ROMs, not a guest's memory."""
HUGE_SHARE = 0.5
SETTLED_PASSES = 3
"""A page merges at its second pass at the earliest."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A guest with what is known of it and around it."""

    facts: Facts
    now: Snapshot
    guest: Guest

    @property
    def mappings(self) -> list[Mapping]:
        """Its mappings; none when they could not be read."""
        return self.facts.mappings.get(self.guest.pid, [])

    def large(self, wanted: Callable[[Mapping], bool]) -> int:
        """The bytes of its large mappings that are like that."""
        return sum(each.size_bytes for each in self.mappings if each.size_bytes >= LARGE_BYTES and wanted(each))

    def finding(self, code: str, sentence: str, evidence: str, mend: str) -> Finding:
        """One about this guest."""
        return Finding(code=code, subject=self.guest.name, sentence=sentence, evidence=evidence, mend=mend)


def switched_off(patient: Patient) -> Iterator[Finding]:
    """By our own doing."""
    guest = patient.guest
    if guest.switched_off or guest.merge is False:
        done = "is" if guest.switched_off else "is to be"
        evidence, mend = guest.merge_reason, "change the rules in [guests] and reload"
        yield patient.finding("switched_off", f"its memory {done} kept out of merging", evidence, mend)


def nosharepages(patient: Patient) -> Iterator[Finding]:
    """By libvirt's configuration."""
    if "nosharepages" in patient.guest.obstacles:
        yield patient.finding(
            "nosharepages",
            "its libvirt domain says that its memory must not merge",
            "<memoryBacking><nosharepages/></memoryBacking> in its XML",
            "if that is not meant so: virsh edit, take it out, and start the domain anew",
        )


def not_mergeable(patient: Patient) -> Iterator[Finding]:
    """It never asked for merging."""
    guest, ksm = patient.guest, patient.guest.ksm
    asked_elsewhere = guest.switched_off or guest.merge is False or "nosharepages" in guest.obstacles
    if ksm is None or asked_elsewhere:
        return
    memory = patient.large(lambda mapping: mapping.mergeable)
    if ksm.mergeable is False or (ksm.mergeable is None and not ksm.rmap_items and patient.mappings and not memory):
        word = "ksm_mergeable is no" if ksm.mergeable is False else "its ksm_stat counts nothing"
        yield patient.finding(
            "not_mergeable",
            "the process has not asked for merging",
            f"{word} in /proc/{guest.pid}/ksm_stat, and no large mapping has the flag mg in smaps",
            _ask_for_merging(guest),
        )
    elif patient.mappings and not memory and not _made_of_something_else(patient):
        yield patient.finding(
            "memory_not_mergeable",
            "its memory does not merge, only small parts of the process do",
            f"no mapping of {human_bytes(LARGE_BYTES)} or more has the flag mg in /proc/{guest.pid}/smaps",
            f"ksmtuned-py unmerge --undo {guest.name}, if it was switched off"
            if guest.kind == "qemu"
            else "see its logs",
        )


def _ask_for_merging(guest: Guest) -> str:
    if guest.kind == "qemu":
        return "start QEMU with mem-merge=on (its default), or for libvirt without <nosharepages/>"
    return "start it with ksmtuned-py exec -- PROGRAM, or with MemoryKSM=yes in its systemd unit"


def _made_of_something_else(patient: Patient) -> bool:
    return bool(_shared_bytes(patient) or _hugetlb_bytes(patient))


def shared(patient: Patient) -> Iterator[Finding]:
    """KSM merges private memory only."""
    size = _shared_bytes(patient)
    if size or "shared" in patient.guest.obstacles:
        seen = f"{human_bytes(size)} mapped shared in smaps" if size else "<access mode='shared'/> in its XML"
        yield patient.finding(
            "shared",
            "its memory is shared with another process and never merges",
            seen,
            "needed for virtiofs and vhost-user; without those, use private memory",
        )


def _shared_bytes(patient: Patient) -> int:
    return patient.large(lambda each: each.shared and not _is_vfio(each) and "ht" not in each.flags)


def hugetlb(patient: Patient) -> Iterator[Finding]:
    """Neither does memory of the hugetlb pools."""
    size = _hugetlb_bytes(patient)
    if size or "hugepages" in patient.guest.obstacles:
        yield patient.finding(
            "hugetlb",
            "its memory comes from the hugetlb pools and never merges",
            f"{human_bytes(size)} with the flag ht in smaps" if size else "<hugepages/> in its XML",
            "use transparent huge pages instead, if it is to merge",
        )


def _hugetlb_bytes(patient: Patient) -> int:
    return patient.large(lambda mapping: "ht" in mapping.flags)


def vfio(patient: Patient) -> Iterator[Finding]:
    """A device that was passed through pins all of the guest's memory."""
    devices = [mapping.path for mapping in patient.mappings if _is_vfio(mapping)]
    if devices or "vfio" in patient.guest.obstacles:
        yield patient.finding(
            "vfio",
            "a device is passed through to it, which pins all of its memory: pinned pages never merge",
            f"{devices[0]} in smaps" if devices else "<hostdev> in its XML",
            "none: use a virtio device where merging matters more; <nosharepages/> spares ksmd the looking",
        )


def _is_vfio(mapping: Mapping) -> bool:
    return "vfio" in mapping.path


def huge_pages(patient: Patient) -> Iterator[Finding]:
    """A huge page is split for a merge, and what it hides is found late."""
    mergeable = [each for each in patient.mappings if each.mergeable and each.size_bytes >= LARGE_BYTES]
    resident = sum(each.sizes.get("Rss", 0) for each in mergeable)
    huge = sum(each.sizes.get("AnonHugePages", 0) for each in mergeable)
    if resident and huge / resident > HUGE_SHARE:
        yield patient.finding(
            "huge_pages",
            f"{human_percent(huge / resident)} of its mergeable memory is in huge pages, which merging has to split",
            f"AnonHugePages is {human_bytes(huge)} of Rss {human_bytes(resident)} in smaps",
            "fine for speed; where memory matters more: THP off for guests (madvise, and no hugepage advice)",
        )


def unread(patient: Patient) -> Iterator[Finding]:
    """No account."""
    if patient.guest.ksm is None:
        yield patient.finding(
            "no_account",
            "what it merges cannot be read",
            f"/proc/{patient.guest.pid}/ksm_stat gives nothing",
            "ask as root; it needs Linux 6.1, and a process whose memory map is not locked",
        )


def nothing_equal(patient: Patient) -> Iterator[Finding]:
    """It is looked at, and nothing is found."""
    ksm, passes = patient.guest.ksm, patient.now.counters.full_scans
    if ksm and ksm.rmap_items and not _merged(ksm) and passes >= SETTLED_PASSES:
        yield patient.finding(
            "nothing_equal",
            "its pages were looked at and none has an equal",
            f"{ksm.rmap_items} pages tracked, 0 merged, after {passes} passes",
            "encrypted or compressed memory never merges; <nosharepages/> or a rule spares the looking",
        )


def not_yet_scanned(patient: Patient) -> Iterator[Finding]:
    """Its turn has not come."""
    ksm = patient.guest.ksm
    if ksm and ksm.mergeable and not ksm.rmap_items and not _merged(ksm) and not patient.guest.merge_reason:
        yield patient.finding(
            "not_yet_scanned",
            "ksmd has not looked at its pages yet",
            f"ksm_rmap_items is 0 in /proc/{patient.guest.pid}/ksm_stat",
            "wait for two passes; ksmtuned-py why says when they come",
        )


def losing(patient: Patient) -> Iterator[Finding]:
    """Merging it costs more than it saves."""
    guest, ksm, allowed = patient.guest, patient.guest.ksm, patient.facts.settings.losing_passes
    if ksm and _merged(ksm) and (guest.losing_passes >= allowed or (not patient.facts.daemon and ksm.profit_bytes < 0)):
        yield patient.finding(
            "losing",
            "the kernel's records of its pages take more memory than merging them saves",
            f"{ksm.rmap_items / _merged(ksm):.0f} records for each merged page, more than 64; profit "
            f"{human_bytes(ksm.profit_bytes)}; {guest.losing_passes} passes in a row",
            'guests.switch_off_losing = true, or a rule with merge = "no"',
        )


def _merged(ksm: GuestKsm) -> int:
    return ksm.merging_pages + ksm.zero_pages


def cgroup_debt(patient: Patient) -> Iterator[Finding]:
    """Its own writes could get it killed."""
    guest = patient.guest
    owed = _merged(guest.ksm) * patient.now.page_bytes if guest.ksm else 0
    if guest.room_bytes is not None and owed > guest.room_bytes:
        yield patient.finding(
            "cgroup_debt",
            "if it writes to all its merged pages, it goes over its cgroup's memory.max",
            f"{human_bytes(owed)} merged, {human_bytes(guest.room_bytes)} left under memory.max of {guest.cgroup}",
            "raise memory.max, or keep it out of merging by a rule",
        )


GUEST_CHECKS: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
    switched_off,
    nosharepages,
    not_mergeable,
    shared,
    hugetlb,
    vfio,
    huge_pages,
    unread,
    nothing_equal,
    not_yet_scanned,
    losing,
    cgroup_debt,
)
