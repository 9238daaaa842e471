"""Reads what a process has mapped (/proc/PID/maps), and tells which of it may be scanned. Pure."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from ksmtuned_py.door.text import kernel_lines
from ksmtuned_py.errors import Garbage

PAGES_NAME = "ksmtuned-py-pages"
"""The name of memfds with merged pages; the group's hash and the time of making follow it."""
_PAGES_PATH = f"/memfd:{PAGES_NAME}"


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of /proc/PID/maps."""

    start: int
    end: int
    permissions: str
    offset: int
    inode: int
    name: str

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.end - self.start

    @property
    def merged(self) -> bool:
        """Whether it maps merged pages of ours; those of its pages that were written to are private memory again."""
        return self.name.startswith(_PAGES_PATH) and self.permissions == "rw-p"

    @property
    def anonymous(self) -> bool:
        """Whether it is private memory without a file, or over merged pages of ours."""
        plain = self.inode == 0 and (not self.name or self.name.startswith(("[heap]", "[anon:")))
        return self.permissions == "rw-p" and (plain or self.merged)


def parse_maps(text: str) -> list[Mapping]:
    """Returns the mappings in address order; raises Garbage for a line of another form."""
    return [_mapping(line) for line in kernel_lines(text)]


def _mapping(line: str) -> Mapping:
    try:
        fields = line.split(maxsplit=5)
        start, _, end = fields[0].partition("-")
        name = fields[5] if len(fields) == 6 else ""
        return Mapping(int(start, 16), int(end, 16), fields[1], int(fields[2], 16), int(fields[4]), name)
    except (ValueError, IndexError):
        raise Garbage("/proc/PID/maps", line[:80], "START-END PERM OFFSET DEV INODE NAME") from None


def candidates(mappings: list[Mapping]) -> list[tuple[int, int]]:
    """Returns the address ranges whose private pages may be equal to others; neighbours are joined."""
    ranges: list[tuple[int, int]] = []
    for mapping in mappings:
        if not mapping.anonymous:
            continue
        if ranges and ranges[-1][1] == mapping.start:
            ranges[-1] = (ranges[-1][0], mapping.end)
        else:
            ranges.append((mapping.start, mapping.end))
    return ranges


def are_still_there(wanted: Iterable[tuple[int, int]], mappings: list[Mapping]) -> bool:
    """Whether all these address ranges are private memory now, however it is cut into mappings."""
    ranges = candidates(mappings)
    starts = [start for start, _ in ranges]
    places = ((bisect_right(starts, start) - 1, end) for start, end in wanted)
    return all(at >= 0 and end <= ranges[at][1] for at, end in places)
