"""The cgroup of a process, and how much memory it may still take. Only cgroup v2 has both in one tree."""

from ksmtuned_py.door import Door, parse_int
from ksmtuned_py.errors import KsmtunedError

CGROUP_ROOT = "sys/fs/cgroup"


def parse_cgroup(text: str) -> str:
    """The path in the unified tree from /proc/PID/cgroup; '' when it is in the root, or there is no such tree."""
    paths = [line.removeprefix("0::") for line in text.splitlines() if line.startswith("0::")]
    return paths[0].removesuffix(" (deleted)").rstrip("/") if paths else ""


def room_bytes(door: Door, cgroup: str) -> int | None:
    """memory.max less memory.current, the least on the way up from a cgroup; None = no limit."""
    rooms = []
    while cgroup:
        room = _own_room_bytes(door, f"{CGROUP_ROOT}{cgroup}")
        rooms += [room] if room is not None else []
        cgroup = cgroup.rpartition("/")[0]
    return min(rooms, default=None)


def _own_room_bytes(door: Door, directory: str) -> int | None:
    try:
        limit = door.read_if_there(f"{directory}/memory.max")
        if limit is None or limit.strip() == "max":
            return None
        return max(0, parse_int(directory, limit) - (door.read_int(f"{directory}/memory.current") or 0))
    except KsmtunedError:  # an unreadable or garbled limit is no reason to fail a tick
        return None
