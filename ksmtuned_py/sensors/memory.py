"""Reads the host's memory from /proc/meminfo, and the ZFS cache beside it."""

import re
from collections.abc import Mapping
from dataclasses import replace

from ksmtuned_py.door import Door
from ksmtuned_py.door.text import parse_int
from ksmtuned_py.errors import Garbage, Unreadable
from ksmtuned_py.model import Memory
from ksmtuned_py.units import KIB

MEMINFO = "proc/meminfo"
POOLS = "sys/kernel/mm/hugepages"
_POOL = re.compile(r"hugepages-\d+kB")
ARCSTATS = "proc/spl/kstat/zfs/arcstats"


def read_memory(door: Door) -> Memory:
    """The host's memory now; raises Unreadable without /proc/meminfo, and Garbage when it makes no sense."""
    text = door.read_if_there(MEMINFO)
    if text is None:
        raise Unreadable(door.path(MEMINFO), "no such file")
    arc = door.read_if_there(ARCSTATS)
    memory = parse_meminfo(door.path(MEMINFO), text, parse_arcstats(door.path(ARCSTATS), arc) if arc else 0)
    return memory if "\nHugetlb:" in text else replace(memory, hugetlb_bytes=_pools_bytes(door) or memory.hugetlb_bytes)


def _pools_bytes(door: Door) -> int:
    """The bytes of all hugetlb pools, for kernels whose meminfo has no sum of them; 0 when none is seen."""
    pools = [pool for pool in door.names(POOLS) if _POOL.fullmatch(pool)]
    sizes = {pool: int(pool.removeprefix("hugepages-").removesuffix("kB")) * KIB for pool in pools}
    return sum(size * (door.read_int(f"{POOLS}/{pool}/nr_hugepages") or 0) for pool, size in sizes.items())


def parse_meminfo(path: str, text: str, arc_reclaimable_bytes: int = 0) -> Memory:
    """Read /proc/meminfo, whose lines that we want are in KiB; raises Garbage, which names a missing line."""
    sizes = {name: value.removesuffix(" kB") for name, _, value in (line.partition(":") for line in text.splitlines())}

    def size_bytes(name: str, default: str = "") -> int:
        size = sizes.get(name, default)
        if not size:
            raise Garbage(path, text[:60], f"a line {name}")
        return parse_int(path, size) * KIB

    return Memory(
        total_bytes=size_bytes("MemTotal"),
        available_bytes=size_bytes("MemAvailable"),
        free_bytes=size_bytes("MemFree", "0"),
        buffers_bytes=size_bytes("Buffers", "0"),
        cached_bytes=size_bytes("Cached", "0"),
        swap_total_bytes=size_bytes("SwapTotal", "0"),
        swap_free_bytes=size_bytes("SwapFree", "0"),
        hugetlb_bytes=size_bytes("Hugetlb") if "Hugetlb" in sizes else _hugetlb_bytes(path, sizes),
        arc_reclaimable_bytes=arc_reclaimable_bytes,
        anon_huge_bytes=size_bytes("AnonHugePages", "0"),
    )


def _hugetlb_bytes(path: str, sizes: Mapping[str, str]) -> int:
    """The bytes of all hugetlb pools. Without the kernel's sum only the pool of the default size is known."""
    pages, size_kib = sizes.get("HugePages_Total", "0"), sizes.get("Hugepagesize", "0")
    return parse_int(path, pages) * parse_int(path, size_kib) * KIB


def parse_arcstats(path: str, text: str) -> int:
    """The bytes that ZFS would give back on demand: its cache above its minimum (size - c_min)."""
    values = {fields[0]: fields[2] for line in text.splitlines() if len(fields := line.split()) == 3}
    if "size" not in values or "c_min" not in values:
        raise Garbage(path, text[:60], "rows size and c_min")
    return max(0, parse_int(path, values["size"]) - parse_int(path, values["c_min"]))
