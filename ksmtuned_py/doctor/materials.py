"""Checks whether the kind of a guest's memory keeps it from merging. Pure."""

from collections.abc import Callable, Iterator

from ksmtuned_py.config.doctor import Code
from ksmtuned_py.doctor.finding import Finding
from ksmtuned_py.doctor.patient import LARGE_BYTES, Patient
from ksmtuned_py.guests.evidence import LIBVIRT, MACHINE
from ksmtuned_py.guests.smaps import Smap
from ksmtuned_py.model import Guest
from ksmtuned_py.units import human_bytes, human_percent

HUGE_SHARE = 0.5
BULK_SHARE = 0.5
PINNING: dict[Code, tuple[str, str]] = {
    "vfio": ("a passed-through device", "<hostdev> in its domain's XML, or vfio-pci on its command line"),
    "nvme": ("an NVMe disk that QEMU drives by itself", "<disk type='nvme'>, or nvme:// on its command line"),
    "vdpa": ("a vDPA device", "<interface type='vdpa'> or <disk type='vhostvdpa'>, or vhost-vdpa on its command line"),
}
"""Devices that access the guest's memory by themselves, and where they are seen."""
SPARE = 'none but to do without; <nosharepages/>, or a rule with merge = "no", spares ksmd the scanning'


def encrypted(patient: Patient) -> Iterator[Finding]:
    """Find that the guest's memory is encrypted.

    The host sees each page under a key that depends on its address, or not at all.
    """
    if patient.has("encrypted"):
        yield patient.finding(
            "encrypted",
            "the guest's memory is encrypted or hidden from the host, and never merges",
            "<launchSecurity> in its domain's XML"
            if "encrypted" in patient.guest.obstacles
            else f"SEV, TDX, Secure Execution or pKVM in /proc/{patient.guest.pid}/cmdline",
            SPARE,
        )


def pinned(patient: Patient) -> Iterator[Finding]:
    """Find devices that pin the guest's memory. Pinned pages never merge."""
    found: dict[Code, str] = {code: where for code, (_, where) in PINNING.items() if patient.has(code)}
    devices = [mapping.path for mapping in patient.seen.mappings if _is_vfio(mapping)]
    if devices and not found:
        found["vfio"] = f"{devices[0]} in /proc/{patient.guest.pid}/smaps"
    for code, where in found.items():
        yield patient.finding(
            code,
            f"{PINNING[code][0]} reaches its memory, which pins all of it: pinned pages never merge",
            where,
            SPARE,
        )


def _is_vfio(mapping: Smap) -> bool:
    return "vfio" in mapping.path


def shared(patient: Patient) -> Iterator[Finding]:
    """Find memory that is shared with another process. KSM merges only private memory."""
    size = patient.large_bytes(_is_shared)
    if size or (patient.has("shared") and not patient.seen.mappings):
        yield _as_much(patient, size)(
            "shared",
            "memory is shared with another process and never merges",
            f"{human_bytes(size)} mapped shared in /proc/{patient.guest.pid}/smaps"
            if size
            else "shared access, or memfd without access mode='private', in its configuration",
            f"needed for virtiofs and vhost-user; without those use private memory: {_private(patient.guest)}",
        )


def _private(guest: Guest) -> str:
    """The setting that gives a guest of this kind private memory."""
    if guest.kind == "cloud-hypervisor":
        return "--memory without shared=on"
    in_xml, on_command_line = "<access mode='private'/> in its domain's XML", "share=off with its memory backend"
    if guest.libvirt_age_seconds is not None or not {LIBVIRT, MACHINE}.isdisjoint(guest.evidence):
        return in_xml
    return on_command_line if guest.kind == "qemu" else f"{in_xml}, or {on_command_line}"


def _as_much(patient: Patient, size_bytes: int) -> Callable[[Code, str, str, str], Finding]:
    """Choose a finding for the bulk of the memory, and a note for a device's window or a second pool."""
    return patient.note if 0 < size_bytes < patient.large_bytes(lambda _: True) * BULK_SHARE else patient.finding


def _is_shared(mapping: Smap) -> bool:
    return mapping.shared and not _is_vfio(mapping) and "ht" not in mapping.flags


def hugetlb(patient: Patient) -> Iterator[Finding]:
    """Find memory of the hugetlb pools, which never merges."""
    size = patient.large_bytes(_is_hugetlb)
    if size or (patient.has("hugepages") and not patient.seen.mappings):
        yield _as_much(patient, size)(
            "hugetlb",
            "memory comes from the hugetlb pools and never merges",
            f"{human_bytes(size)} with the flag ht in /proc/{patient.guest.pid}/smaps"
            if size
            else "<hugepages/> in its configuration",
            "use transparent huge pages instead, if it is to merge",
        )


def _is_hugetlb(mapping: Smap) -> bool:
    return "ht" in mapping.flags


def locked(patient: Patient) -> Iterator[Finding]:
    """Note locked memory. It merges (measured), but no swap takes its copies."""
    size = patient.large_bytes(lambda mapping: "lo" in mapping.flags and mapping.mergeable)
    if size:
        yield patient.note(
            "locked",
            "memory is locked: it merges, but when merged pages are written to, no swap takes the copies",
            f"{human_bytes(size)} with the flags lo and mg in /proc/{patient.guest.pid}/smaps",
            "none, while the host has the room; else take out <locked/>, or mem-lock=on",
        )


def huge_pages(patient: Patient) -> Iterator[Finding]:
    """Note memory in huge pages. A merge splits a huge page, and equal pages in it are found late."""
    mergeable = [each for each in patient.seen.mappings if each.mergeable and each.size_bytes >= LARGE_BYTES]
    resident = sum(each.sizes.get("Rss", 0) for each in mergeable)
    huge = sum(each.sizes.get("AnonHugePages", 0) for each in mergeable)
    if resident and huge / resident > HUGE_SHARE:
        yield patient.note(
            "huge_pages",
            "most of its mergeable memory is in huge pages, which merging has to split",
            f"{human_percent(huge / resident)}: AnonHugePages is {human_bytes(huge)} of Rss {human_bytes(resident)} "
            "in smaps",
            "none is needed: it merges all the same; split huge pages make memory slower",
        )


MATERIAL_CHECKS: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
    encrypted,
    pinned,
    shared,
    hugetlb,
    locked,
    huge_pages,
)
