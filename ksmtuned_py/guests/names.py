"""Finds the names of a guest from its command line, its cgroup, and the tools that people use for it. Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache

from ksmtuned_py.door.text import printable
from ksmtuned_py.guests.evidence import MACHINE, in_machine
from ksmtuned_py.model import Guest

_NAME_OPTIONS = {
    "cloud-hypervisor": ("--api-socket",),
    "firecracker": ("--id", "--api-sock"),
    "crosvm": ("--name", "--socket", "-s"),
}
_SOCKETS = frozenset({"--api-socket", "--api-sock", "--socket", "-s"})
# A socket or directory made of these words alone has the same name for every guest, so it names none.
_COMMON = re.compile(
    r"api|ch|clh|cloud|control|crosvm|ctl|fc|firecracker|http|hypervisor|jailer|kata|kvm|lib|mnt|monitor|opt|proc|qmp|"
    r"root|run|serial|sock|socket|srv|tmp|unix|v1|var|vc|vm|vmm|vms|vsock"
)
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
SHORT_IDS = (13, 12)
"""The number of letters of a container's id that crictl and docker show."""
MICROVM = "microvm@"
"""microvm.nix starts its hypervisors with this and the name as argv[0]."""
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")

# How the last part of a cgroup's path holds a name.
_CGROUPS = (
    re.compile(r"machine-(?:qemu|lxc)-\d+-(.+)\.scope"),  # libvirt: driver, id, name
    re.compile(r"machine-(.+)\.scope"),  # systemd-nspawn and others of machined's
    re.compile(r"lxc\.(?:payload|monitor)\.(.+)"),  # LXC, LXD, Incus
    re.compile(r"(?:cri-containerd|crio|docker|libpod)-([0-9a-f]{64})\.scope"),
    re.compile(r"([0-9a-f]{64})"),  # docker without systemd
    re.compile(r"[^@]+@(.+)\.service"),  # the instance of a unit: microvm@web.service
    re.compile(r"(\d+)\.scope"),  # Proxmox: qemu.slice/102.scope
)


@dataclass(frozen=True, slots=True)
class Names:
    """The names and the UUID of a guest, as far as one source tells."""

    name: str = ""
    aliases: tuple[str, ...] = ()
    uuid: str = ""


def names_of(kind: str, words: Sequence[str]) -> Names:
    """The names on a guest's command line; '' where it does not tell."""
    if kind in _NAME_OPTIONS:
        given = ((option, value) for option in _NAME_OPTIONS[kind] for value in _values(words, (option,)))
        found = [_socket_name(value) if option in _SOCKETS else value for option, value in given]
    else:
        found = [_qemu_name(value) for value in _values(words, ("-name",))]
    if kind in ("qemu", "vm"):
        found += _values(words, ("-id",))  # Proxmox: kvm -id 102; Kata with a VMM of its own: -id SANDBOX
    found += [words[0].removeprefix(MICROVM)] if words and words[0].startswith(MICROVM) else []
    names = list(dict.fromkeys(name for given in found if given for name in _forms(given)))
    uuid = "" if kind == "mergeable" else _uuid(words)  # what any other program has there is no domain's UUID
    return Names(names[0] if names else "", tuple(names[1:]), uuid)


def _forms(name: str) -> Iterator[str]:
    """The forms in which its tools show a name, the usual form first."""
    bare = name.removeprefix("sandbox-")  # Kata's name for the guest of QEMU
    if _CONTAINER_ID.fullmatch(bare):
        yield bare
        yield from (bare[:length] for length in SHORT_IDS)
    if bare != name or not _CONTAINER_ID.fullmatch(bare):
        yield name
    if match := re.fullmatch(r"one-(\d+)", name):  # OpenNebula: onevm show 524
        yield match[1]


@lru_cache(maxsize=4096)
def cgroup_names(cgroup: str) -> tuple[str, ...]:
    """The names in the path of a cgroup: those of a container, a machine, or a unit's instance."""
    found: list[str] = []
    for part in reversed(cgroup.split("/")):
        text = _unescaped(part)
        match = next((match for pattern in _CGROUPS if (match := pattern.fullmatch(text))), None)
        if match:
            found += _forms(match[1])
    return tuple(dict.fromkeys(found))


def _unescaped(part: str) -> str:
    return printable(_ESCAPED.sub(lambda match: chr(int(match[1], 16)), part))


def placed(guest: Guest, cgroup: str, namespace: str | None = None) -> Guest:
    """The guest in its cgroup, with the names that it has there.

    `namespace` is that of its pod; None where it is not known. It may not call itself a VM of another one.
    """
    vmi = _vmi_name(guest.name) if guest.kind == "qemu" and "kubepods" in cgroup else ""
    if namespace is not None and not vmi.startswith(f"{namespace}/"):
        vmi = ""
    evidence = (*guest.evidence, MACHINE) if in_machine(cgroup) and MACHINE not in guest.evidence else guest.evidence
    seen = replace(guest, cgroup=cgroup, evidence=evidence)
    return renamed(seen, vmi or guest.name, cgroup_names(cgroup))


def renamed(guest: Guest, name: str, aliases: Iterable[str]) -> Guest:
    """The guest under a better name. Its former names become aliases."""
    others = dict.fromkeys([guest.name, *guest.aliases, *aliases])
    return replace(guest, name=name, aliases=tuple(other for other in others if other != name))


def _vmi_name(name: str) -> str:
    """The name NAMESPACE/NAME of a KubeVirt domain; '' for any other.

    KubeVirt and Harvester call the domain NAMESPACE_NAME, and neither part can have a '_' in it.
    """
    namespace, _, vmi = name.partition("_")
    return f"{namespace}/{vmi}" if namespace and vmi and "_" not in vmi else ""


def told_apart(guests: Iterable[Guest]) -> tuple[Guest, ...]:
    """The guests, with new names for those that share one."""
    all_of_them = tuple(guests)
    taken = Counter(name for guest in all_of_them for name in {guest.name, *guest.aliases})
    names = Counter(guest.name for guest in all_of_them)
    return tuple(_told_apart(guest, taken) if names[guest.name] > 1 else guest for guest in all_of_them)


def _told_apart(guest: Guest, taken: Counter[str]) -> Guest:
    own = next((alias for alias in guest.aliases if taken[alias] == 1), str(guest.pid))
    return replace(guest, name=f"{guest.name}-{own}", aliases=(guest.name, *guest.aliases))


def goes_by(guest: Guest, word: str) -> bool:
    """Whether a word is one of the guest's names, its UUID or its PID."""
    return word in (guest.name, *guest.aliases, str(guest.pid)) or (guest.uuid != "" and word.lower() == guest.uuid)


def is_called(guest: Guest, pattern: str) -> bool:
    """Whether one of the guest's names matches a shell pattern."""
    return any(fnmatchcase(name, pattern) for name in (guest.name, *guest.aliases))


def _uuid(words: Sequence[str]) -> str:
    """The UUID from -uuid, or as Proxmox gives it, from -smbios type=1,uuid=...; in small letters, '' for none."""
    smbios = [value for value in _values(words, ("-smbios",)) if re.search(r"\btype=1\b", value)]
    inside = [match[1] for value in smbios if (match := re.search(rf"\buuid=({_UUID})", value, re.IGNORECASE))]
    return next(iter([*_values(words, ("-uuid",)), *inside]), "").lower()


def _values(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """The values of the options, in the order of the options. QEMU takes -x and --x; a value may follow a '='."""
    return [value for option in options for value in _values_of(words, option) if value]


def _values_of(words: Sequence[str], option: str) -> Iterator[str]:
    spellings = {option, option if option.startswith("--") else f"-{option}"}
    for index, word in enumerate(words[1:], start=1):
        if word in spellings:
            yield words[index + 1] if index + 1 < len(words) else ""
        elif word.startswith("--") and word.partition("=")[0] in spellings:
            yield word.partition("=")[2]


def _qemu_name(value: str) -> str:
    """The guest= part of QEMU's -name, or its bare first part. A comma within a value is doubled there."""
    parts = [part.replace("\0", ",") for part in value.replace(",,", "\0").split(",")]
    for part in parts:
        if part.startswith("guest="):
            return part.removeprefix("guest=")
    return parts[0] if "=" not in parts[0] else ""


def _socket_name(value: str) -> str:
    """A guest's name from the path of its socket. It is the last part that is not the same for every guest."""
    if value.startswith("fd="):  # a socket that was opened before: its number says nothing
        return ""
    parts = value.removeprefix("path=").split("/")
    parts[-1] = parts[-1].partition(".")[0]
    return next((part for part in reversed(parts) if part and not _is_common(part)), "")


def _is_common(part: str) -> bool:
    return all(_COMMON.fullmatch(word) for word in re.split(r"[-_.]", part.lower()) if word)
