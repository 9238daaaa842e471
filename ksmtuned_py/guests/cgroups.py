"""Reads the cgroup of a process, which rules go by, and the memory it may still take.

Only cgroup v2 has a single tree.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ksmtuned_py.door import Door
from ksmtuned_py.door.text import kernel_lines, parse_int
from ksmtuned_py.errors import KsmtunedError

CGROUP_ROOT = "sys/fs/cgroup"
LIMITS = ("memory.high", "memory.max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A cgroup with a limit on its memory."""

    cgroup: str
    file: str
    """The file with the limit: memory.max, or memory.high, above which the cgroup is throttled."""
    limit_bytes: int
    used_bytes: int
    """The memory in use without the page cache, which gives way."""


def parse_cgroup(text: str) -> str | None:
    """The path in the unified tree from /proc/PID/cgroup; '' is the root, and None means that no such tree is used."""
    lines = kernel_lines(text)
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if path is None or (path == "/" and len(lines) > 1):  # cgroups v1: everything is in the root of the unified tree
        return None
    return path.removesuffix(" (deleted)").rstrip("/")


def room_bytes(door: Door, cgroup: str) -> int | None:
    """The least of memory.max less memory.current on the way up from a cgroup, in bytes; None = no limit."""
    rooms = (_own_room_bytes(door, f"{CGROUP_ROOT}{each}") for each in upwards(cgroup))
    return min((room for room in rooms if room is not None), default=None)


def process_room_bytes(door: Door, text: str) -> int | None:
    """The bytes that a process with this /proc/PID/cgroup may still take, in either kind of tree; None = no limit."""
    rooms = [room_bytes(door, parse_cgroup(text) or "")]
    for path in upwards(_controller(text, "memory")):
        limit, used = (
            _number(door, f"{CGROUP_ROOT}/memory{path}/memory.{name}_in_bytes") for name in ("limit", "usage")
        )
        rooms.append(None if limit is None or used is None else max(0, limit - used))
    return min((room for room in rooms if room is not None), default=None)


def upwards(cgroup: str) -> Iterator[str]:
    """A cgroup and all that it is in, up to the root, which is left out: it has no limits."""
    while cgroup:
        yield cgroup
        cgroup = cgroup.rpartition("/")[0]


def is_frozen(door: Door, text: str) -> bool:
    """Whether a process with this /proc/PID/cgroup is kept from running, in either kind of tree."""
    events = [
        door.read_if_there(f"{root}{_controller(text, '')}/cgroup.events") or ""
        for root in (CGROUP_ROOT, f"{CGROUP_ROOT}/unified")
    ]
    state = door.read_if_there(f"{CGROUP_ROOT}/freezer{_controller(text, 'freezer')}/freezer.state")
    return any("frozen 1" in one for one in events) or (state or "THAWED").strip() != "THAWED"


def keeps_a_kill_waiting(text: str) -> bool:
    """Whether a process with this /proc/PID/cgroup may be frozen so that not even a kill ends it.

    So it is with the freezer of cgroup v1, everywhere but in its root.
    """
    return bool(_controller(text, "freezer"))


def _controller(text: str, name: str) -> str:
    """The path in the cgroup v1 tree of one controller; '' for its root, or without such a tree."""
    fields = (line.split(":", 2) for line in kernel_lines(text))
    return next((path.rstrip("/") for _, names, path in fields if name in names.split(",")), "")


def _own_room_bytes(door: Door, directory: str) -> int | None:
    try:
        limit = door.read_if_there(f"{directory}/memory.max")
        if limit is None or limit.strip() == "max":
            return None
        return max(0, parse_int(directory, limit) - (door.read_int(f"{directory}/memory.current") or 0))
    except KsmtunedError:  # an unreadable or garbled limit is no reason to fail a tick
        return None


def limits(door: Door, cgroup: str) -> Iterator[Limit]:
    """The tighter limit of each cgroup that has one, from this cgroup upwards."""
    for each in upwards(cgroup):
        directory = f"{CGROUP_ROOT}{each}"
        found = {name: size for name in LIMITS if (size := _number(door, f"{directory}/{name}")) is not None}
        if found:
            file = min(found, key=lambda name: found[name])
            used = (_number(door, f"{directory}/memory.current") or 0) - _cache_bytes(door, directory)
            yield Limit(cgroup=each, file=file, limit_bytes=found[file], used_bytes=max(0, used))


def _number(door: Door, path: str) -> int | None:
    try:
        return door.read_int(path)
    except KsmtunedError:  # "max", or nothing to be read here
        return None


def _cache_bytes(door: Door, directory: str) -> int:
    try:
        lines = dict(
            line.partition(" ")[::2] for line in (door.read_if_there(f"{directory}/memory.stat") or "").splitlines()
        )
        return sum(parse_int(directory, lines.get(f"{side}_file", "0")) for side in ("active", "inactive"))
    except KsmtunedError:
        return 0
