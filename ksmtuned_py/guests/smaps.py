"""Parses a process's mappings from /proc/PID/smaps, with what each is made of and whether it may merge. Pure.

Reading smaps walks the process's page tables under the lock of its memory map, so no tick does it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ksmtuned_py.door.text import kernel_lines
from ksmtuned_py.guests.mappings import Mapping, parse_maps
from ksmtuned_py.units import KIB

SMAPS_SECONDS = 30.0
"""The time to wait for smaps. A walk over all page tables takes a second for some 100 GiB."""

_HEAD = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")


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
    """The sizes of Rss, AnonHugePages, KSM and the like, in bytes."""

    @property
    def mergeable(self) -> bool:
        """Whether its pages are offered to ksmd."""
        return "mg" in self.flags


def parse_blocks(text: str) -> Iterator[tuple[Mapping, dict[str, str]]]:
    """Each mapping with the lines below its head, by their names; raises Garbage for a head of another form."""
    mapping, lines = None, dict[str, str]()
    for line in kernel_lines(text):
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
        flags=frozenset(lines.get("VmFlags", "").split()),
        sizes={name: int(value.split()[0]) * KIB for name, value in lines.items() if value.endswith(" kB")},
    )
