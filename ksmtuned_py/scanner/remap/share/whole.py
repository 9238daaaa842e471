"""Makes huge pages of ranges that remapping has cut: each is copied into a new one, which is then moved over the range.

What was moved stays a mapping of its own, so the kernel cannot make a huge page of such a range by itself. A range is
the memory of one huge page. Either the guest has it as before or as one huge page, whenever we are killed.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from ksmtuned_py.door import Door
from ksmtuned_py.guests.mappings import Mapping
from ksmtuned_py.scanner.pagemap import HUGE, IN_MEMORY, OF_THE_ZERO_PAGE, PAGE, SWAPPED, Kind, page_count
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.foothold.session import Session, Window
from ksmtuned_py.scanner.remap.processors.architecture import NR
from ksmtuned_py.scanner.remap.refuse.eligibility import ADVICE, Eligible
from ksmtuned_py.scanner.remap.share.giveback import (
    bring_in,
    copy_beside,
    discard,
    fill,
    move_over,
    refuse_without_room,
)
from ksmtuned_py.scanner.remap.share.intact import change
from ksmtuned_py.scanner.remap.share.runs import PageRun, closed, in_turn
from ksmtuned_py.scanner.remap.stop.stops import patiently

_HUGE_PAGES = ADVICE["hg"]


@dataclass(frozen=True, slots=True)
class CutRange:
    """A range that is private memory throughout, and more than one mapping."""

    address: int
    size: int
    mappings: tuple[Mapping, ...]

    @property
    def merged_pages(self) -> int:
        """The pages of its mappings that are merged, or were until they were written to."""
        return sum(self.part(each)[1] for each in self.mappings if each.merged) // PAGE

    def part(self, mapping: Mapping) -> tuple[int, int]:
        """Returns address and size of what the mapping has of it."""
        start = max(self.address, mapping.start)
        return start, min(self.address + self.size, mapping.end) - start


def cut_ranges(mappings: Iterable[Mapping], size: int) -> list[CutRange]:
    """Returns those of one process, in address order."""
    parts = defaultdict[int, list[Mapping]](list)
    for mapping in mappings:
        if mapping.anonymous:
            for address in {mapping.start // size * size, (mapping.end - 1) // size * size}:
                parts[address].append(mapping)
    found = (CutRange(address, size, tuple(parts[address])) for address in sorted(parts))
    return [one for one in found if len(one.mappings) > 1 and sum(one.part(each)[1] for each in one.mappings) == size]


def make_whole(
    door: Door,
    process: Process,
    session: Session,
    ranges: Iterable[tuple[CutRange, list[Eligible]]],
    standing: Callable[[], AbstractContextManager[Window]],
    most: int,
    made: Callable[[int], None],
) -> Generator[int, None, None]:
    """Makes the ranges whole one by one that cost so many pages at most; yields pages.

    `made` hears how many pages each of them cost. Raises NoRoomThere, Refused and Gone.
    """
    mem = os.open("mem", os.O_RDWR | os.O_CLOEXEC, dir_fd=process.directory)
    try:
        for one, pieces in ranges:
            yield one.size // PAGE
            if (paid := _price(process, one)) is None or paid > most:
                continue
            refuse_without_room(door, process)
            runs = [_run(one, each) for each in pieces]
            bring_in(process, [(run.address, run.size) for run in runs if run.eligible.mapping.merged])
            move = partial(_move, process, session, mem, one, runs, standing)
            if (yield from patiently(session.stops, process.target.pid, move)):
                made(paid)
    finally:
        os.close(mem)


def able(ranges: Iterable[CutRange], found: list[Eligible]) -> Iterator[tuple[CutRange, list[Eligible]]]:
    """Yields those whose mappings are all alike, and asked for huge pages, each with its mappings."""
    known = {one.mapping: one for one in found}
    for one in ranges:
        pieces = [known[each] for each in one.mappings if each in known]
        alike = {(each.reserve, each.advice, each.policy) for each in pieces}
        if len(pieces) == len(one.mappings) and len(alike) == 1 and _HUGE_PAGES in pieces[0].advice:
            yield one, pieces


def _run(one: CutRange, piece: Eligible) -> PageRun:
    address, size = one.part(piece.mapping)
    return PageRun(address, size // PAGE, 0, piece)


def _price(process: Process, one: CutRange) -> int | None:
    """Returns how many pages it would take that the host saves now; None where some are missing, or in swap.

    Pages that were never there, or that a balloon has taken, would come back with it.
    """
    for mapping in one.mappings:
        address, size = one.part(mapping)
        if not mapping.merged and not _has_all(process, address, size, IN_MEMORY):
            return None
    end = one.address + one.size
    if page_count(process.runs(one.address, end, SWAPPED)):
        return None
    return one.merged_pages + page_count(process.runs(one.address, end, OF_THE_ZERO_PAGE))


def _move(
    process: Process,
    session: Session,
    mem: int,
    one: CutRange,
    runs: list[PageRun],
    standing: Callable[[], AbstractContextManager[Window]],
) -> bool:
    """Makes one range whole in one stop; returns whether, for pages of it may be missing, which would take memory."""
    like = runs[0].eligible
    with standing() as window:
        if reason := change(process, runs):
            raise Refused(reason)
        if not all(_has_all(process, run.address, run.size, IN_MEMORY) for run in runs):
            return False
        copy = _huge_copy(session, window, one.size, like)
        fill(process, session, window, mem, one.address, one.size, copy)
        if not _has_all(process, copy, one.size, HUGE):
            discard(session, window, copy, one.size)
            raise Refused("no memory in one piece is left for a huge page")
        move_over(session, window, one.address, one.size, like, copy)
    return True


def _has_all(process: Process, address: int, size: int, kind: Kind) -> bool:
    return page_count(process.runs(address, address + size, kind)) == size // PAGE


def _huge_copy(session: Session, window: Window, size: int, like: Eligible) -> int:
    """Maps memory in the guest that one huge page fills; returns its address. Raises Refused."""
    begin = copy_beside(session, window, 2 * size, like)
    copy = -(-begin // size) * size
    before, behind = (begin, copy - begin), (copy + size, begin + size - copy)
    session.stage(copy, size)  # Whoever cleans up must not unmap what the guest may map in place of the ends.
    trims = [(NR["munmap"], each) for each in (before, behind) if each[1]]
    advised = (NR["madvise"], (copy, size, _HUGE_PAGES))
    results = window.run(closed(in_turn([*trims, advised], 0)))
    if results[-1] < 0:
        discard(session, window, copy, size)
        raise Refused(f"madvise in it failed: {os.strerror(-results[-1])}")
    return copy
