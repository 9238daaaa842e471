"""PURE: which guests, and which of their mappings, may be remapped. Everything not known to be harmless is refused.

Stopping all threads of a process does not stop a device, a kernel worker or another process that writes to its memory:
what they wrote between our comparison and the remapping would be lost without a trace.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ksmtuned_py.backends.scan.mappings import Mapping, parse_maps
from ksmtuned_py.backends.scan.remap.numa import Policy, parse_policy
from ksmtuned_py.guests.balloon import parse_balloon

_DEVICES = re.compile(
    r"/dev/(null|zero|full|u?random|tty.*|pts/.*|ptmx|console|kmsg|kvm|net/tun|tap\d+|rtc\d*|log|shm/.*|mqueue/.*)$"
)
"""Devices that write to memory only in a system call of the process itself; KVM follows a change of mappings.

So do disks ('disk:...'): a thread that reads from one past the page cache, or sends it a command, waits for the end of
it in a way that cannot be stopped, and so the guest is left alone meanwhile.
"""
_ANONYMOUS = re.compile(
    r"anon_inode:(\[(eventfd|eventpoll|timerfd|signalfd|pidfd|fanotify|kvm-vm|kvm-vcpu(-stats)?:.*|perf_event)\]"
    r"|inotify|kvm-vm|kvm-vcpu(-stats)?:.*|kvm-vm-stats)$"
)
_REASONS = (
    ("/dev/vfio", "a device of its own (VFIO) may write to its memory at any time"),
    ("/dev/vhost", "the kernel (vhost) may write to its memory at any time"),
    ("/dev/infiniband", "a network card (RDMA) may write to its memory at any time"),
    ("anon_inode:[io_uring]", "the kernel (io_uring) may write to its memory at any time"),
    ("anon_inode:[userfaultfd]", "its missing pages are handled by userfaultfd"),
)
_RINGS = {"/[aio]": "native AIO", "anon_inode:[io_uring]": "io_uring"}
"""How the kernel's queues are called in mappings."""
_PLAIN_FLAGS = frozenset("rd wr mr mw me ac sd nr".split())  # noqa: SIM905 - as they stand in the file
ADVICE = {"rr": 1, "sr": 2, "dc": 10, "mg": 12, "hg": 14, "nh": 15, "dd": 16}
"""Flags that madvise sets again: random, sequential, don't fork, mergeable, huge pages, no huge pages, don't dump."""


@dataclass(frozen=True, slots=True)
class Eligible:
    """A mapping that may be remapped, and what must be set on the new one."""

    mapping: Mapping
    reserve: bool
    """Its memory is accounted for (no MAP_NORESERVE)."""
    advice: tuple[int, ...]
    policy: Policy | None = None
    """If it has one of its own."""


def descriptor_refusal(links: Iterable[str]) -> str:
    """Why a process with these open files is refused; ''."""
    for link in links:
        for begin, reason in _REASONS:
            if begin in link:  # jailed guests have a /dev of their own somewhere
                return reason
        if link.startswith("/dev/") and not _DEVICES.match(link):
            return f"it has {link} open, which may write to its memory at any time"
        if link.startswith("anon_inode:") and not _ANONYMOUS.match(link):
            return f"it has {link} open, which may write to its memory at any time"
    return ""


def status_refusal(status: str) -> str:
    """Why a process or thread with this /proc/PID/status is refused; ''."""
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if found.get("Seccomp") == "1":
        return "it runs under strict seccomp, which forbids any system call of ours"
    if found.get("TracerPid", "0") != "0":
        return "a debugger is attached to it"
    if found.get("State", "").startswith(("T", "t")):
        return "it is stopped"
    return "it has ended" if found.get("State", "").startswith(("Z", "X")) else ""


def command_refusal(command_line: str) -> str:
    """Why a guest started like this is refused; ''. Given-back memory must read as zeros: merged memory would not."""
    balloon = parse_balloon(command_line.split())
    if balloon.reports_free_pages or balloon.pluggable:
        return "free page reporting or virtio-mem gives its memory back already, and better"
    return ""


def mappings_refusal(mappings: Iterable[Mapping], least_bytes: int) -> str:
    """Why a process with these mappings is refused; ''."""
    for mapping in mappings:
        if ring := _ring(mapping):
            return f"the kernel ({ring}) may write to its memory at any time"
        if mapping.permissions.startswith("rw") and mapping.permissions[3] == "s" and mapping.size >= least_bytes:
            return "its memory is shared with other processes (vhost-user, virtiofs)"
    return ""


def eligible(smaps: str, policies: dict[int, str] | None, least_bytes: int) -> tuple[list[Eligible], str]:
    """The mappings of /proc/PID/smaps that may be remapped, and why one of that size is not; None: without NUMA."""
    found, reason = [], ""
    for mapping, flags in _with_flags(smaps):
        if not mapping.anonymous or mapping.name.startswith("[heap]"):
            continue
        text = "" if policies is None else policies.get(mapping.start, "unknown")
        policy = parse_policy(text) if text else None
        odd = flags - _PLAIN_FLAGS - ADVICE.keys()
        if odd or (text and not policy):
            if mapping.size >= least_bytes:
                what = f"flag {min(odd)}" if odd else f"NUMA policy {text}"
                reason = f"a mapping of it has the {what}, which we cannot restore"
            continue
        advice = tuple(number for flag, number in ADVICE.items() if flag in flags)
        found.append(Eligible(mapping, "nr" not in flags, advice, policy))
    return [one for group in _neighbours(found) if _size(group) >= least_bytes for one in group], reason


def of_one_policy(found: list[Eligible]) -> tuple[list[Eligible], Policy | None, str]:
    """Those with the NUMA policy that most of the memory has, that policy, and why the others are left out.

    A memfd has a policy of its own, which holds for all that have mapped it, and a guest has one memfd.
    """
    sizes: Counter[Policy | None] = Counter()
    for one in found:
        sizes[one.policy] += one.mapping.size
    if not sizes:
        return [], None, ""
    (most, _), *others = sizes.most_common()
    reason = (
        f"only its memory with the NUMA policy {_name(most)} is merged, not {_name(others[0][0])}" if others else ""
    )
    return [one for one in found if one.policy == most], most, reason


def _name(policy: Policy | None) -> str:
    return policy.text if policy else "default"


def _ring(mapping: Mapping) -> str:
    return next((what for name, what in _RINGS.items() if mapping.name.startswith(name)), "")


def _with_flags(smaps: str) -> Iterable[tuple[Mapping, frozenset[str]]]:
    header = ""
    for line in smaps.splitlines():
        if line.startswith("VmFlags:"):
            yield parse_maps(header)[0], frozenset(line.split()[1:])
        elif _HEADER.match(line):
            header = line


_HEADER = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")


def _neighbours(found: list[Eligible]) -> list[list[Eligible]]:
    """Mappings without a gap between them: one piece of memory, cut by what was remapped before."""
    groups: list[list[Eligible]] = []
    for one in found:
        if groups and groups[-1][-1].mapping.end == one.mapping.start:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _size(group: list[Eligible]) -> int:
    return group[-1].mapping.end - group[0].mapping.start
