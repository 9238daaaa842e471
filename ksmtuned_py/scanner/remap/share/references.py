"""Finds who still maps merged pages: every process of the host is asked, as a child inherits its parent's mappings."""

import errno
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.guests.mappings import PAGES_NAME, Mapping, parse_maps
from ksmtuned_py.scanner.pagemap import COPIED, PAGE, page_numbers, runs
from ksmtuned_py.scanner.remap.foothold.area import AREA_NAME, CODE_BYTES, HEADER_BYTES, Left
from ksmtuned_py.scanner.remap.stop import system
from ksmtuned_py.sensors.stat import is_kernel_thread, parse_stat, thread_count
from ksmtuned_py.sensors.status import is_stopped, parse_status
from ksmtuned_py.units import MIB

PAGES_PER_PROCESS = 16
"""Pages that could be read in the time that a look at one process takes."""
_PIECE_BYTES, _READ_BYTES = 256 * MIB, 1 << 16
_OURS = b" /memfd:ksmtuned-py-"
_MOST_AREAS = 256
"""The most areas of a process that are read; a worker makes none where there are many."""
_COUNTED_PER_PAGE = 64
"""How many pages of a mapping are looked up in the time in which one is read."""


@dataclass(slots=True)
class References:
    """Who refers to each page of a store."""

    readers: NDArray[np.uint32]
    """For each page, how many mappings read it."""
    covered: NDArray[np.bool_]
    """For each page, whether any mapping covers it, even one whose guest has written and reads its own copy."""
    certain: bool = True
    """Whether nobody else can read it: every process could be looked at, and none is about to map more of it."""

    @classmethod
    def none(cls, pages: int) -> Self:
        """Returns the references to a store of so many pages that nobody has mapped."""
        return cls(np.zeros(pages, np.uint32), np.zeros(pages, np.bool_))


def references(door: Door, ends: dict[int, int], since_ticks: int) -> Generator[int, None, dict[int, References]]:
    """Returns who refers to each store (inode: pages).

    Some processes cannot be looked at (a security module protects them). That does not matter where they had begun
    before any store was there. Yields the work of each step, in pages that could be read meanwhile.
    """
    counts = {inode: References.none(end) for inode, end in ends.items()}
    for pid in door.names("proc") if ends else ():
        uncertain: Iterable[int] = ()
        try:
            uncertain, mappings = yield from _asked(door, pid)
            yield PAGES_PER_PROCESS + len(mappings)
            yield from _count_all(door, pid, [mapping for mapping in mappings if mapping.inode in counts], counts)
        except (OSError, KsmtunedError):
            uncertain = () if _began_before(door, pid, since_ticks) else counts
        for inode in counts.keys() & set(uncertain):
            counts[inode].certain = False
    return counts


def merged_mappings(door: Door, pid: str) -> Generator[int, None, list[Mapping]]:
    """Returns a process's mappings of merged pages; raises OSError and KsmtunedError when it cannot be asked."""
    return _named((yield from _maps(door, pid))[1], PAGES_NAME)


def _asked(door: Door, pid: str) -> Generator[int, None, tuple[list[int], list[Mapping]]]:
    """Returns the stores of which a process may map pages yet, as it was told, and what it has mapped of any.

    It maps them when it has time for that, also for a worker that was killed; its control group may be frozen. The gate
    in its area is shut until it has mapped all.
    """
    task, lines = yield from _maps(door, pid)
    areas = _areas(lines)[:_MOST_AREAS]
    headers = [_read(door, task, area.start + CODE_BYTES, HEADER_BYTES) for area in areas if _is_ours(door, task, area)]
    told = [left.store_key[1] for left in map(Left.parse, headers) if left.gate_is_shut and _has(door, task, left)]
    if areas:  # read anew: it may have mapped all by now
        _, lines = yield from _maps(door, pid)
    return told, _named(lines, PAGES_NAME)


def _areas(lines: list[str]) -> list[Mapping]:
    """Returns the areas with their headers beside them, without which nothing that a process was told can be done.

    A guest may have put anything in place of a header, like nothing that can be read, or a file that does not answer.
    """
    found = _named(lines, AREA_NAME)
    headers = {(one.start, one.inode) for one in found if one.offset == CODE_BYTES}
    code = [one for one in found if one.offset == 0 and one.size == CODE_BYTES]
    return [one for one in code if (one.end, one.inode) in headers]


def _named(lines: list[str], memfd: str) -> list[Mapping]:
    return [mapping for mapping in parse_maps("\n".join(lines)) if mapping.name.startswith(f"/memfd:{memfd}")]


def _has(door: Door, task: str, left: Left) -> bool:
    """Whether the process has the store open of which it is said to be told; without that it can map none of it.

    What is said there it may have written itself.
    """
    with suppress(FileNotFoundError):
        return system.file(door.path(f"{task}/fd/{left.store}"), system.ANYWHERE).key == left.store_key
    return False


def _is_ours(door: Door, task: str, area: Mapping) -> bool:
    """Whether a worker has made the area; anybody can make a memfd of that name. Not known once it is unmapped."""
    with suppress(FileNotFoundError):
        return system.file(door.path(f"{task}/map_files/{area.start:x}-{area.end:x}"), system.ANYWHERE).owner == 0
    return True


def _read(door: Door, task: str, address: int, size: int) -> bytes:
    with door.holding(task) as directory:
        memory = os.open("mem", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            found = os.pread(memory, size, address)
        finally:
            os.close(memory)
    if len(found) < size:
        raise OSError(errno.EIO, "its memory cannot be read")
    return found


def _maps(door: Door, pid: str) -> Generator[int, None, tuple[str, list[str]]]:
    """Returns the directory of a thread below /proc, and the lines of its mappings that may be ours.

    Raises OSError where that is not known. When its first thread has ended, that thread shows nothing, though the
    others go on with all that the process has. So an empty answer proves that nothing is mapped only for a process with
    one thread.
    """
    if not pid.isdecimal():
        return "", []
    for task in (f"proc/{pid}", *(f"proc/{pid}/task/{thread}" for thread in door.names(f"proc/{pid}/task"))):
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = yield from _lines(door, task)
            if lines is not None:
                return task, lines
    stat = door.read_if_there(f"proc/{pid}/stat")
    if stat is None or is_kernel_thread(stat) or thread_count(stat) <= 1:
        return "", []
    raise OSError(errno.ESRCH, "it has threads, and no mappings that can be seen")


def _lines(door: Door, task: str) -> Generator[int, None, list[str] | None]:
    """Returns the lines of a thread's mappings that may be ours, or None when it shows no mapping at all.

    Anybody may have mapped so much, under names so long, that reading all of it takes seconds.
    """
    found, rest, seen = list[str](), b"", False
    descriptor = os.open(door.path(f"{task}/maps"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        while piece := os.read(descriptor, _READ_BYTES):
            *lines, rest = (rest + piece).split(b"\n")
            found += [line.decode("utf-8", "replace") for line in lines if _OURS in line]
            seen = True
            yield 1
    finally:
        os.close(descriptor)
    return found if seen else None


def _began_before(door: Door, pid: str, ticks: int) -> bool:
    with suppress(OSError, KsmtunedError):
        return parse_stat(door.read(f"proc/{pid}/stat")).start_ticks < ticks
    return False


def _count_all(door: Door, pid: str, mappings: list[Mapping], counts: dict[int, References]) -> Iterator[int]:
    """Counts what a process has mapped.

    One that is stopped may still be about to map pages for a worker that was killed.
    """
    if not mappings:
        return
    pagemap = -1
    with suppress(OSError):
        pagemap = os.open(door.path(f"proc/{pid}/pagemap"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        for mapping in mappings:
            yield from _count(pagemap, mapping, counts[mapping.inode])
    finally:
        if pagemap >= 0:
            os.close(pagemap)
    if is_stopped(parse_status(door.read_if_there(f"proc/{pid}/status") or "")):
        for mapping in mappings:
            counts[mapping.inode].certain = False


def _count(pagemap: int, mapping: Mapping, counts: References) -> Iterator[int]:
    """Counts one mapping piece by piece.

    A guest may have mapped far more than the store has; beyond its end there is nothing to be freed.
    """
    end = min(mapping.end, mapping.start + max(0, len(counts.readers) * PAGE - mapping.offset))
    for start in range(mapping.start, end, _PIECE_BYTES):
        mapped = np.ones((min(end, start + _PIECE_BYTES) - start) // PAGE, np.uint32)
        mapped[_copied(pagemap, start, start + len(mapped) * PAGE)] = 0
        begin = (mapping.offset + start - mapping.start) // PAGE
        counts.readers[begin : begin + len(mapped)] += mapped
        counts.covered[begin : begin + len(mapped)] = True
        yield 1 + len(mapped) // _COUNTED_PER_PAGE


def _copied(pagemap: int, start: int, end: int) -> NDArray[np.uint32]:
    """Returns the pages between the addresses of which the process has a copy; none where that is not known."""
    if pagemap >= 0:
        with suppress(OSError):
            return page_numbers(runs(pagemap, start, end, COPIED), start)
    return np.empty(0, np.uint32)
