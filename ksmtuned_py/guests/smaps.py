"""Parses a process's mappings from /proc/PID/smaps, with what each is made of and whether it may merge. Pure.

Reading smaps walks the process's page tables under the lock of its memory map, so no tick does it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from ksmtuned_py.guests.mappings import Mapping, parse_maps
from ksmtuned_py.units import KIB

SMAPS_SECONDS = 30.0
"""The time to wait for smaps. A walk over all page tables takes a second for some 100 GiB."""

_HEAD = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")
_LINE = re.compile(r"[^\n]+")
_KEPT = ("Rss", "AnonHugePages", "Swap")
"""What somebody asks for. All else that smaps says would take 3 KiB for each mapping, and a host may have 100,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Smap:
    """One mapping, with what smaps says of it."""

    size_bytes: int
    shared: bool
    """Mapped with MAP_SHARED, so it never merges."""
    path: str = ""
    flags: frozenset[str] = frozenset()
    """VmFlags: 'mg' is memory that may merge, 'ht' hugetlb, 'io' and 'pf' a device's own memory."""
    sizes: dict[str, int] = field(default_factory=dict)
    """The sizes of Rss, AnonHugePages and Swap, in bytes. Those of nothing are left out."""

    @property
    def mergeable(self) -> bool:
        """Whether its pages are offered to ksmd."""
        return "mg" in self.flags


def parse_blocks(text: str) -> Iterator[tuple[Mapping, dict[str, str]]]:
    """Each mapping with the lines below its head, by their names; raises Garbage for a head of another form."""
    mapping, lines = None, dict[str, str]()
    for found in _LINE.finditer(text):  # one by one: all lines of a long text at once take three times its memory
        line = found[0]
        if _HEAD.match(line):
            if mapping is not None:
                yield mapping, lines
            [mapping], lines = parse_maps(line), {}
        else:
            name, _, value = line.partition(":")
            lines[name] = value.strip()
    if mapping is not None:
        yield mapping, lines


def parse_smaps(text: str) -> list[Smap]:
    """All mappings of a process; raises Garbage for one of another form."""
    return [_smap(mapping, lines) for mapping, lines in parse_blocks(text)]


def parse_rollup(text: str) -> int | None:
    """The private memory in huge pages from a smaps_rollup, in bytes; None where it says nothing of it."""
    lines = dict(line.partition(":")[::2] for line in text.splitlines())
    size = lines.get("AnonHugePages", "").split()
    return int(size[0]) * KIB if size and size[0].isdecimal() else None


def ram_mappings(mappings: list[Smap], sizes_bytes: list[int]) -> list[Smap]:
    """The mappings of these sizes. QEMU maps each backend in one piece, with guard pages around it."""
    return [mapping for mapping in mappings if mapping.size_bytes in sizes_bytes]


def _smap(mapping: Mapping, lines: dict[str, str]) -> Smap:
    return Smap(
        size_bytes=mapping.size,
        shared=mapping.permissions.endswith("s"),
        path=mapping.name,
        flags=_flags(lines.get("VmFlags", "")),
        sizes={name: size for name in _KEPT if (size := _bytes(lines.get(name, "")))},
    )


@lru_cache(maxsize=256)
def _flags(words: str) -> frozenset[str]:
    """The flags, once for all mappings that have the same."""
    return frozenset(words.split())


def _bytes(value: str) -> int:
    return int(value.split()[0]) * KIB if value.endswith(" kB") else 0
