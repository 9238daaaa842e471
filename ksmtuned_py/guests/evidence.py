"""Judges whether a process is a guest by more than the name of its program. Pure.

A list of hypervisors' names has gaps: a symlink, a patched build, a VMM of one's own. So this module goes by what is
seen of a process.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from ksmtuned_py.guests.programs import guest_kind
from ksmtuned_py.units import MIB

PROGRAM, PATTERN, CGROUP, COMMAND_LINE = "program", "pattern", "cgroup", "command line"
KVM, MACHINE, LIBVIRT, ASKED, FLAG = "kvm", "machine", "libvirt", "asked", "flag"
LASTING = frozenset({KVM, MACHINE, LIBVIRT, ASKED, FLAG})
"""Evidence from elsewhere than the name and the command line. A look at those two alone does not take it away."""
KVM_LINKS = re.compile(r"anon_inode:\[?kvm-(vm|vcpu)")
"""Matches the link of a descriptor on a virtual machine, or on one of its processors."""
LEAST_BYTES = 64 * MIB
"""The least that a virtual machine maps. A sudo, strace or numactl with its command line maps less."""

# QEMU's options as every tool spells them. A guest has at least one of those that say who it is.
_WHO = frozenset({"-name", "-uuid", "-smbios"})
_QEMU = _WHO | {"-machine", "-M", "-accel", "-enable-kvm", "-cpu", "-m", "-nodefaults", "-no-user-config"}
_FLAG = re.compile(r"^VmFlags:.*\bmg\b", re.MULTILINE)
# Matched from the root on: below a service or scope of a user's, anybody can make cgroups of any name.
_LIBVIRTS = r"(?:/[^/]+\.slice)+/machine-qemu[^/]*\.scope|/machine/qemu-[^/]+\.libvirt-qemu"
_PROXMOX = r"/qemu\.slice/\d+\.scope"
_IN_LIBVIRTS, _IN_MACHINE = (
    re.compile(rf"^(?:\d+:[^:]*:)?(?:{path})(?:/|$)", re.MULTILINE) for path in (_LIBVIRTS, f"{_LIBVIRTS}|{_PROXMOX}")
)
_HELPERS = re.compile(r"virtiofsd|vhost-(user|device).*|qemu-(storage-da|pr-helper|vhost|bridge).*|swtpm|passt.*")
"""Helper programs, which are in the cgroup of their guest. Some of them map its memory."""


class Clue(NamedTuple):
    """The evidence that a slow look at a process has shown."""

    words: list[str]
    resident_bytes: int = 0
    cgroups: str = ""
    """All cgroups of the process, one a line. With cgroups v1 there are many trees."""
    has_kvm: bool = False
    is_libvirts: bool = False
    is_flagged: bool | None = None
    """Some of its memory may merge; None = smaps was not read."""


def speaks_of_a_guest(words: Sequence[str]) -> bool:
    """Whether a command line is QEMU's, whatever the program is called."""
    options = _QEMU.intersection(words[1:])
    return len(options) > 1 and not options.isdisjoint(_WHO)


def kind_by_words(
    name: str, words: Sequence[str], cgroup: str, patterns: Sequence[str], cgroup_patterns: Sequence[str]
) -> tuple[str | None, str]:
    """The kind of guest that a process is, and the evidence for it; None and '' when it is no guest.

    It goes by the name, the command line and the configured patterns.
    """
    if kind := guest_kind(name, words, patterns):
        return kind, PATTERN if kind == "pattern" else PROGRAM
    if any(fnmatchcase(cgroup, pattern) for pattern in cgroup_patterns):
        return "pattern", CGROUP
    return ("qemu", COMMAND_LINE) if speaks_of_a_guest(words) else (None, "")


def in_machine(cgroups: str) -> bool:
    """Whether one of these is a cgroup that libvirt or Proxmox made for a virtual machine."""
    return bool(_IN_MACHINE.search(cgroups))


def in_libvirts(cgroups: str) -> bool:
    """Whether one of these is a cgroup that libvirt made for a domain of QEMU's."""
    return bool(_IN_LIBVIRTS.search(cgroups))


def is_flagged(smaps: str) -> bool:
    """Whether some mapping has the flag mg. Kernels before 6.18 show it nowhere else until ksmd has scanned it."""
    return bool(_FLAG.search(smaps))


def kind_by_clue(name: str, clue: Clue) -> tuple[str | None, tuple[str, ...]]:
    """The kind of guest that a process is by a slow look, and the evidence for it; None when it is no guest."""
    evidence = []
    if clue.has_kvm:
        evidence.append(KVM)
    if clue.is_libvirts:
        evidence.append(LIBVIRT)
    if in_machine(clue.cgroups) and clue.resident_bytes >= LEAST_BYTES and not _HELPERS.fullmatch(name):
        evidence.append(MACHINE)
    if evidence:
        of_qemu = clue.is_libvirts or MACHINE in evidence or speaks_of_a_guest(clue.words)
        return "qemu" if of_qemu else "vm", tuple(evidence)
    return ("mergeable", (FLAG,)) if clue.is_flagged else (None, ())
