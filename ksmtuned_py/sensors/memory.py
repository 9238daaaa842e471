"""The host's memory: /proc/meminfo, and the ZFS cache beside it."""

from ksmtuned_py.door import Door, parse_int
from ksmtuned_py.errors import Garbage, Unreadable
from ksmtuned_py.model import Memory
from ksmtuned_py.units import KIB

MEMINFO = "proc/meminfo"
ARCSTATS = "proc/spl/kstat/zfs/arcstats"
_WANTED = ("MemTotal", "MemAvailable")


def read_memory(door: Door) -> Memory:
    """Memory now; Unreadable without /proc/meminfo, Garbage when it makes no sense."""
    text = door.read_if_there(MEMINFO)
    if text is None:
        raise Unreadable(door.path(MEMINFO), "no such file")
    arc = door.read_if_there(ARCSTATS)
    return parse_meminfo(door.path(MEMINFO), text, parse_arcstats(door.path(ARCSTATS), arc) if arc else 0)


def parse_meminfo(path: str, text: str, arc_reclaimable_bytes: int = 0) -> Memory:
    """/proc/meminfo as Memory; its sizes are in KiB, its hugetlb counts in pages. Garbage names what was missing."""
    values = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        values[name] = parse_int(path, rest.removesuffix(" kB"))
    for name in _WANTED:
        if name not in values:
            raise Garbage(path, text[:60], f"a line {name}")
    return Memory(
        total_bytes=values["MemTotal"] * KIB,
        available_bytes=values["MemAvailable"] * KIB,
        free_bytes=values.get("MemFree", 0) * KIB,
        buffers_bytes=values.get("Buffers", 0) * KIB,
        cached_bytes=values.get("Cached", 0) * KIB,
        swap_total_bytes=values.get("SwapTotal", 0) * KIB,
        swap_free_bytes=values.get("SwapFree", 0) * KIB,
        hugetlb_bytes=values.get("Hugetlb", 0) * KIB,
        arc_reclaimable_bytes=arc_reclaimable_bytes,
    )


def parse_arcstats(path: str, text: str) -> int:
    """What ZFS would give back on demand, in bytes: its cache above its minimum (size - c_min)."""
    values = {fields[0]: fields[2] for line in text.splitlines() if len(fields := line.split()) == 3}
    if "size" not in values or "c_min" not in values:
        raise Garbage(path, text[:60], "rows size and c_min")
    return max(0, parse_int(path, values["size"]) - parse_int(path, values["c_min"]))
