"""Parses a process's mappings from /proc/PID/smaps, with what each is made of and whether it may merge. Pure.

Reading smaps walks the process's page tables under the lock of its memory map, so no tick does it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ksmtuned_py.units import KIB

SMAPS_SECONDS = 30.0
"""The time to wait for smaps. A walk over all page tables takes a second for some 100 GiB."""

# "7f73d3e00000-7f73d7e00000 rw-p 00000000 00:00 0      [heap]"
_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
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


def parse_smaps(text: str) -> list[Mapping]:
    """All mappings of a process. Lines that no kernel writes are passed over."""
    return [_mapping(block) for block in _blocks(text)]


def ram_mappings(mappings: list[Mapping], sizes_bytes: list[int]) -> list[Mapping]:
    """The mappings of these sizes. QEMU maps each backend in one piece, with guard pages around it."""
    return [mapping for mapping in mappings if mapping.size_bytes in sizes_bytes]


def _blocks(text: str) -> Iterator[list[str]]:
    block: list[str] = []
    for line in text.splitlines():
        if _HEAD.match(line):
            if block:
                yield block
            block = []
        block.append(line)
    if block:
        yield block


def _mapping(block: list[str]) -> Mapping:
    head = _HEAD.match(block[0])
    pairs = [line.partition(":")[::2] for line in block[1:]]
    sizes = {name: int(value.split()[0]) * KIB for name, value in pairs if value.endswith(" kB")}
    flags = next((value for name, value in pairs if name == "VmFlags"), "")
    begin, end = (int(head[1], 16), int(head[2], 16)) if head else (0, 0)
    return Mapping(
        size_bytes=end - begin,
        shared=bool(head and head[3].endswith("s")),
        path=head[4] if head else "",
        flags=frozenset(flags.split()),
        sizes=sizes,
    )
