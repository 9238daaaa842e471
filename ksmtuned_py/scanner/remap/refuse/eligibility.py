"""Tells which guests and which of their mappings may be remapped; see opened.py for what they have open. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ksmtuned_py.guests.balloon import parse_balloon
from ksmtuned_py.guests.mappings import Mapping, candidates
from ksmtuned_py.guests.smaps import parse_blocks
from ksmtuned_py.scanner.remap.refuse.numa import NumaPolicy, parse_policy
from ksmtuned_py.sensors.status import is_migration, is_stopped

_HARMLESS_CAPABILITIES = sum(1 << number for number in (10, 12, 13, 14, 23))
"""NET_BIND_SERVICE, NET_ADMIN, NET_RAW, IPC_LOCK, SYS_NICE: none of them opens a file of root's for writing."""
_NO_KEY = "0"
"""The protection key of memory that was given none."""
USUAL_MAPPINGS, _MOST_MAPPINGS = 65_530, 100_000
"""The kernel's own limit on a process's mappings unless somebody has raised it; the most that are looked at."""
_PLAIN_FLAGS = frozenset("rd wr mr mw me ac sd nr".split())  # noqa: SIM905 - as they stand in the file
ADVICE = {"rr": 1, "sr": 2, "dc": 10, "mg": 12, "hg": 14, "nh": 15, "dd": 16}
"""Flags that madvise sets again: random, sequential, don't fork, mergeable, huge pages, no huge pages, don't dump."""


@dataclass(frozen=True, slots=True)
class Eligible:
    """A mapping that may be remapped, and what must be set on the new one."""

    mapping: Mapping
    reserve: bool
    """Whether its memory is accounted for (no MAP_NORESERVE)."""
    advice: tuple[int, ...]
    policy: NumaPolicy | None = None
    """The NUMA policy of the mapping; None when it has none of its own."""


def status_refusal(found: dict[str, str]) -> str | None:
    """Returns why a process or thread with these lines of /proc/PID/status is refused; None when it is not."""
    if found.get("Seccomp") == "1":
        return "it runs under strict seccomp, which forbids any system call of ours"
    if found.get("TracerPid", "0") != "0":
        return "a debugger is attached to it"
    if is_stopped(found):
        return "it is stopped"
    if found.get("State", "").startswith(("Z", "X")):
        return "its first thread has ended"
    if is_migration(found.get("Name", "")):
        return "it is being migrated, or a snapshot of it is taken"
    if "0" in found.get("Uid", "").split():
        return "it runs as root, and so could write to what all others have mapped"
    if int(found.get("CapPrm", "0"), 16) & ~_HARMLESS_CAPABILITIES:
        return "it has capabilities of root's, and so might write to what all others have mapped"
    return None


def command_refusal(words: Sequence[str]) -> str | None:
    """Returns why a guest with this command line is refused; None when it is not."""
    balloon = parse_balloon(words)
    if balloon.reports_free_pages or balloon.pluggable:
        return "free page reporting or virtio-mem gives its memory back already, and better"
    if "-incoming" in words or "--incoming" in words:
        return "it came from another host (-incoming): what is fetched on demand would not be asked for"
    return None


def nested_refusal(words: Sequence[str], vendor: str) -> str | None:
    """Returns why a KVM guest is refused where the module allows guests of guests (vmx, svm); None when it is not.

    Their control pages are pinned, and no change of mappings moves them.
    """
    models = [value.split(",") for option, value in pairwise(words) if option.lstrip("-") == "cpu"]
    if models and {f"{vendor}=off", f"-{vendor}"} & set(models[-1]):
        return None
    named = models and models[-1][0] not in ("host", "max", "base")
    if named and not any(vendor in word for word in models[-1]):
        return None
    return f"it may have guests of its own, whose pages KVM pins: switch that off ({vendor}=off, or kvm's nested=0)"


def mappings_refusal(mappings: Sequence[Mapping], least_bytes: int) -> str | None:
    """Returns why a process with these mappings is refused; None when it is not."""
    if len(mappings) > _MOST_MAPPINGS:
        return f"it has more than {_MOST_MAPPINGS} mappings, each of which would be looked at again and again"
    for mapping in mappings:
        if mapping.permissions.startswith("rw") and mapping.permissions[3] == "s" and mapping.size >= least_bytes:
            return "its memory is shared with other processes (vhost-user, virtiofs)"
    return None


def eligible(smaps: str, policies: dict[int, str] | None, least_bytes: int) -> tuple[list[Eligible], str | None]:
    """Returns the mappings that may be remapped, and why one of that size is not; policies: None without NUMA."""
    found, reason = judged(smaps, policies, least_bytes)
    return of_size(found, least_bytes), reason


def judged(smaps: str, policies: dict[int, str] | None, least_bytes: int) -> tuple[list[Eligible], str | None]:
    """Returns which of these mappings might be remapped were they large enough, and why one of that size may not."""
    found: list[Eligible] = []
    reason = None
    for mapping, flags in _with_flags(smaps):
        if not mapping.anonymous or mapping.name.startswith("[heap]"):
            continue
        text = "" if policies is None else policies.get(mapping.start, "unknown")
        policy = parse_policy(text) if text else None
        odd = flags - _PLAIN_FLAGS - ADVICE.keys()
        if odd or (text and not policy):
            if mapping.size >= least_bytes:
                what = f"flag {max(odd, key=len)}" if odd else f"NUMA policy {text}"
                reason = f"a mapping of it has the {what}, which we cannot restore"
            continue
        advice = tuple(number for flag, number in ADVICE.items() if flag in flags)
        found.append(Eligible(mapping, "nr" not in flags, advice, policy))
    return found, reason


def of_size(found: list[Eligible], least_bytes: int) -> list[Eligible]:
    """Returns those that are, with their neighbours, of at least that size."""
    return [one for group in _neighbours(found) if _size(group) >= least_bytes for one in group]


def large(mappings: Iterable[Mapping], least_bytes: int) -> list[tuple[int, int]]:
    """Returns the address ranges of private memory of at least that size: all that may be remapped is in them."""
    return [(start, end) for start, end in candidates(list(mappings)) if end - start >= least_bytes]


def of_one_policy(found: list[Eligible]) -> tuple[list[Eligible], NumaPolicy | None, str | None]:
    """Returns the mappings with the most frequent NUMA policy, that policy, and why others are left out.

    A memfd has one policy, which holds for all that have mapped it, and a guest has one memfd.
    """
    sizes: Counter[NumaPolicy | None] = Counter()
    for one in found:
        sizes[one.policy] += one.mapping.size
    if not sizes:
        return [], None, None
    (most, _), *others = sizes.most_common()
    chosen = [one for one in found if one.policy == most]
    if not others:
        return chosen, most, None
    return chosen, most, f"only its memory with the NUMA policy {_name(most)} is merged, not {_name(others[0][0])}"


def _name(policy: NumaPolicy | None) -> str:
    return policy.text if policy else "default"


def _with_flags(smaps: str) -> Iterable[tuple[Mapping, frozenset[str]]]:
    for mapping, lines in parse_blocks(smaps):
        if "VmFlags" in lines:
            key = lines.get("ProtectionKey", _NO_KEY)
            keys = {f"protection key {key}"} if key != _NO_KEY else set()
            yield mapping, frozenset(lines["VmFlags"].split()) | keys


def _neighbours(found: list[Eligible]) -> list[list[Eligible]]:
    """Groups mappings without a gap between them: one piece of memory, cut by what was remapped before."""
    groups: list[list[Eligible]] = []
    for one in found:
        if groups and groups[-1][-1].mapping.end == one.mapping.start:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _size(group: list[Eligible]) -> int:
    return group[-1].mapping.end - group[0].mapping.start
