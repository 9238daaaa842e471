"""Knows the programs that run guests, and those that may write KSM's knobs. Pure."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

COMM_LENGTH = 15
"""The kernel cuts a process's name to this length (TASK_COMM_LEN less its end mark)."""

# The names the old ksmtuned looked for (qemu:NAME is what `-name process=` was used for), and Proxmox' kvm.
_QEMU = re.compile(r"kvm|qemu(-(kvm|system-.+)|:.{1,11})")
_FIRECRACKER = re.compile(r"firecracker(-v.+)?")  # releases are called firecracker-v1.7.0-x86_64
_EXACT = {name[:COMM_LENGTH]: name for name in ("cloud-hypervisor", "crosvm", "stratovirt")}

_SUSPECTS = frozenset(
    {
        "ksmtuned",  # RHEL, Debian, Proxmox: pages_to_scan, sleep_millisecs, run every 60 s
        "tuned",  # profiles with [sysfs] /sys/kernel/mm/ksm/...
        "momd",  # oVirt's MOM
        "vdsmd",  # VDSM tunes through MOM ...
        "supervdsmd",  # ... and writes through its root helper
        "virt-handler",  # KubeVirt
        "node-manager",  # Harvester
        "harvester-node-manager",
        "kata-ksm-throttler",
        "uksmd",
        "ksmd-tuner",
    }
)
# libvirtd can write the knobs, too (node-memory-tune). It runs on every host, so naming it would say nothing.

_INTERPRETER = re.compile(r"(platform-)?python[\d.]*|(ba|da)?sh")


def guest_kind(name: str, words: Sequence[str], patterns: Sequence[str]) -> str | None:
    """The kind of guest by its name (which may be cut), its command line and the configured patterns; None for none.

    QEMU's `-name process=X` changes the name, so for QEMU the first word of the command line counts as well. For the
    others it does not count: crosvm's device helpers share crosvm's command line, and have no guest memory of their
    own.
    """
    program = base_name(words[0]) if words else ""
    if _QEMU.fullmatch(name) or _QEMU.fullmatch(program):
        return "qemu"
    if _FIRECRACKER.fullmatch(name):
        return "firecracker"
    configured = any(fnmatchcase(one, pattern) for one in (name, program) if one for pattern in patterns)
    return _EXACT.get(name[:COMM_LENGTH]) or ("pattern" if configured else None)


def may_be_guest(name: str, patterns: Sequence[str]) -> bool:
    """Whether a process of that name may be a guest. A name that was cut stands for all that begin with it."""
    heads = [re.split(r"[*?[]", pattern, maxsplit=1)[0] for pattern in patterns]
    cut = len(name) >= COMM_LENGTH and any(name.startswith(head[:COMM_LENGTH]) for head in heads)
    return cut or guest_kind(name, (), patterns) is not None


def full_name(name: str, words: Sequence[str]) -> str:
    """A process's name, completed from its command line where the kernel cut it."""
    program = base_name(words[0]) if words else ""
    return program if len(name) >= COMM_LENGTH and program.startswith(name) else name


def suspects(names: Iterable[str]) -> tuple[str, ...]:
    """The names of programs that are known to write KSM's knobs, sorted."""
    return tuple(sorted(_SUSPECTS.intersection(names)))


def program_names(name: str, words: Sequence[str]) -> set[str]:
    """The names of a process: its own, its program's, and its script's when the program is an interpreter."""
    program = base_name(words[0]) if words else ""
    names = {name, program}
    if _INTERPRETER.fullmatch(program):
        script = next((word for word in words[1:] if not word.startswith("-")), "")
        names.add(base_name(script))
    return names


def base_name(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]
