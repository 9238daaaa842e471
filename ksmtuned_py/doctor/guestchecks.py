"""Checks whether a guest's memory is offered for merging, and what merging it brings. Pure."""

from collections.abc import Callable, Iterator

from ksmtuned_py.doctor.finding import Finding
from ksmtuned_py.doctor.hostchecks import SETTLED_PASSES
from ksmtuned_py.doctor.mends import ask_for_merging
from ksmtuned_py.doctor.patient import LARGE_BYTES, Patient
from ksmtuned_py.units import human_bytes, human_part

SWAPPED_SHARE = 0.25
"""The share of a guest's memory in swap from which on swap is why it merges badly."""


def switched_off(patient: Patient) -> Iterator[Finding]:
    """Note that our own rules keep the guest out of merging."""
    guest = patient.guest
    if guest.switched_off or guest.merge is False:
        done = "is" if guest.switched_off else "is to be"
        evidence, mend = guest.merge_reason, "none, if that is meant so; else change the rules in [guests] and reload"
        yield patient.note("switched_off", f"memory {done} kept out of merging by a rule", evidence, mend)


def nosharepages(patient: Patient) -> Iterator[Finding]:
    """Note that libvirt's configuration, or QEMU's, keeps the guest out of merging."""
    if patient.has("nosharepages"):
        of_domain = "nosharepages" in patient.guest.obstacles and patient.guest.libvirt_age_seconds is not None
        yield patient.note(
            "nosharepages",
            "memory must not merge, by its own configuration",
            "<memoryBacking><nosharepages/></memoryBacking> in its domain's XML"
            if of_domain
            else f"mem-merge=off in /proc/{patient.guest.pid}/cmdline",
            "none, if that is meant so; else virsh edit, take it out, and start the domain anew"
            if of_domain
            else "none, if that is meant so; else start QEMU anew without it",
        )


def not_mergeable(patient: Patient) -> Iterator[Finding]:
    """Find that the guest never asked for merging, or not for all of its memory."""
    guest, ksm = patient.guest, patient.ksm
    if ksm is None:
        return
    memory, read = patient.large(lambda mapping: mapping.mergeable), patient.seen.mappings
    if ksm.mergeable is False or (ksm.mergeable is None and not ksm.rmap_items and read and not memory):
        word = "ksm_mergeable is no" if ksm.mergeable is False else "its ksm_stat counts nothing"
        yield patient.finding(
            "not_mergeable",
            "the process has not asked for merging",
            f"{word} in /proc/{guest.pid}/ksm_stat" + (", no large mapping has the flag mg in smaps" if read else ""),
            ask_for_merging(guest, patient.facts.system),
        )
    elif read and not memory:
        yield patient.finding(
            "memory_not_mergeable",
            "its memory does not merge, only small parts of the process do",
            f"no mapping of {human_bytes(LARGE_BYTES)} or more has the flag mg in /proc/{guest.pid}/smaps",
            "ksmtuned-py unmerge --undo GUEST, if it was switched off; else start it anew"
            if guest.kind == "qemu"
            else ask_for_merging(guest, patient.facts.system),
        )


def unread(patient: Patient) -> Iterator[Finding]:
    """Find that the guest's account cannot be read, so that nobody knows what it saves."""
    if patient.ksm is None:
        yield patient.finding(
            "no_account",
            "what it saves cannot be read",
            f"/proc/{patient.guest.pid}/ksm_stat gives nothing",
            "ask as root; it needs Linux 6.1, and a process whose memory map is not locked",
        )


def nothing_equal(patient: Patient) -> Iterator[Finding]:
    """Find that the guest's pages were scanned, and none has an equal."""
    ksm, passes = patient.ksm, patient.now.counters.full_scans
    if ksm and ksm.rmap_items and not patient.merged_pages and passes >= SETTLED_PASSES:
        yield patient.finding(
            "nothing_equal",
            "its pages were scanned and none has an equal",
            f"{ksm.rmap_items:,} pages tracked, 0 merged, after {passes:,} passes",
            'compressed memory never merges: <nosharepages/>, or a rule with merge = "no", spares the scanning',
        )


def not_yet_scanned(patient: Patient) -> Iterator[Finding]:
    """Note that ksmd has not scanned the guest yet."""
    ksm = patient.ksm
    if ksm and ksm.mergeable and not ksm.rmap_items and not patient.merged_pages:
        yield patient.note(
            "not_yet_scanned",
            "ksmd has not scanned its pages yet",
            f"ksm_rmap_items is 0 in /proc/{patient.guest.pid}/ksm_stat",
            "wait for two passes; ksmtuned-py why says when they come",
        )


def in_swap(patient: Patient) -> Iterator[Finding]:
    """Find that much of the guest is in swap. ksmd scans only what is in memory."""
    swapped = patient.seen.swapped_bytes
    size = swapped + patient.guest.rss_bytes
    if size and swapped / size > SWAPPED_SHARE:
        yield patient.finding(
            "in_swap",
            "much of its memory is in swap, where ksmd does not scan",
            f"{human_part(swapped, size)} are in swap, by /proc/{patient.guest.pid}/smaps",
            "more memory or fewer guests; with fewer, what it needs comes back by itself and merges then",
        )


def losing(patient: Patient) -> Iterator[Finding]:
    """Find that merging the guest costs more memory than it saves."""
    guest, ksm, allowed = patient.guest, patient.ksm, patient.facts.settings.losing_passes
    lost = guest.losing_passes >= allowed or (not patient.facts.daemon and ksm is not None and ksm.profit_bytes < 0)
    if ksm and patient.merged_pages and lost:
        yield patient.finding(
            "losing",
            "the kernel's records of its pages take more memory than merging them saves",
            f"{ksm.rmap_items / patient.merged_pages:.0f} records for each merged page; profit "
            f"{human_bytes(ksm.profit_bytes)}; {guest.losing_passes} passes in a row",
            'guests.switch_off_losing = true, or a rule with merge = "no"',
        )


def cgroup_debt(patient: Patient) -> Iterator[Finding]:
    """Find that the guest's own writes to merged pages could exceed its cgroup's limit, and get it killed."""
    guest, owed = patient.guest, patient.merged_pages * patient.now.page_bytes
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
    unread,
    nothing_equal,
    not_yet_scanned,
    in_swap,
    losing,
    cgroup_debt,
)
