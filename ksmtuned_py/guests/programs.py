"""Which programs run guests, what their command lines say of them, and who else may write KSM's knobs. PURE."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

COMM_LENGTH = 15
"""The kernel cuts a process's name to this (TASK_COMM_LEN less its end mark)."""

# The names the old ksmtuned looked for (qemu:NAME is what `-name process=` was used for), and Proxmox' kvm.
_QEMU = re.compile(r"kvm|qemu(-(kvm|system-.+)|:.{1,11})")
_FIRECRACKER = re.compile(r"firecracker(-v.+)?")  # releases are called firecracker-v1.7.0-x86_64
_EXACT = {name[:COMM_LENGTH]: name for name in ("cloud-hypervisor", "crosvm")}

_NAME_OPTIONS = {
    "cloud-hypervisor": ("--api-socket",),
    "firecracker": ("--id", "--api-sock"),
    "crosvm": ("--name", "--socket", "-s"),
}
_NAMELESS_SOCKETS = frozenset({"", "api", "ch", "clh", "clh-api", "crosvm", "firecracker", "run", "socket"})
"""Sockets that every guest has under the same name, in a directory of its own."""

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
# libvirtd can write them too (node-memory-tune), but it runs on every host, so naming it would say nothing.

_INTERPRETER = re.compile(r"(platform-)?python[\d.]*|(ba|da)?sh")


def guest_kind(name: str, words: Sequence[str], patterns: Sequence[str]) -> str | None:
    """What a process is as a guest, by its name (it may be cut), its command line, and the configured shell patterns.

    QEMU's `-name process=X` changes the name, so its first word counts as well; crosvm's device helpers share
    crosvm's command line but hold no guest memory of their own, so for the others it does not.
    """
    program = base_name(words[0]) if words else ""
    if _QEMU.fullmatch(name) or _QEMU.fullmatch(program):
        return "qemu"
    if _FIRECRACKER.fullmatch(name):
        return "firecracker"
    configured = any(fnmatchcase(one, pattern) for one in (name, program) if one for pattern in patterns)
    return _EXACT.get(name[:COMM_LENGTH]) or ("pattern" if configured else None)


def guest_name(kind: str, words: Sequence[str]) -> str:
    """The guest's name as its command line gives it; '' when it does not."""
    if kind not in _NAME_OPTIONS:
        return _qemu_name(_option(words, "-name"))
    for option in _NAME_OPTIONS[kind]:
        if value := _option(words, option):
            return _socket_name(value) if "/" in value else value
    return ""


def guest_uuid(kind: str, words: Sequence[str]) -> str:
    """The UUID from QEMU's -uuid; '' when there is none."""
    return _option(words, "-uuid") if kind == "qemu" else ""


def suspects(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that belong to programs known to write KSM's knobs, sorted."""
    return tuple(sorted(_SUSPECTS.intersection(names)))


def program_names(name: str, words: Sequence[str]) -> set[str]:
    """What a process may be called: its name, its program, and its script when the program is an interpreter."""
    program = base_name(words[0]) if words else ""
    names = {name, program}
    if _INTERPRETER.fullmatch(program):
        script = next((word for word in words[1:] if not word.startswith("-")), "")
        names.add(base_name(script))
    return names


def base_name(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]


def _option(words: Sequence[str], option: str) -> str:
    """The value after the option (QEMU takes -x and --x), or behind its '='; '' when it is not there."""
    spellings = {option, option if option.startswith("--") else f"-{option}"}
    for index, word in enumerate(words[1:], start=1):
        if word in spellings:
            return words[index + 1] if index + 1 < len(words) else ""
        if word.startswith("--") and word.partition("=")[0] in spellings:
            return word.partition("=")[2]
    return ""


def _qemu_name(value: str) -> str:
    """The guest= part of QEMU's -name, or its bare first part; a comma within a value is doubled."""
    parts = [part.replace("\0", ",") for part in value.replace(",,", "\0").split(",")]
    for part in parts:
        if part.startswith("guest="):
            return part.removeprefix("guest=")
    return parts[0] if "=" not in parts[0] else ""


def _socket_name(value: str) -> str:
    """A guest's name from its socket: the file's, or its directory's where all sockets are called alike."""
    path = PurePosixPath(value.removeprefix("path="))
    stem = path.name.partition(".")[0]
    return path.parent.name if stem in _NAMELESS_SOCKETS else stem
