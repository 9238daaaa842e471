"""Undoes merging: every merged run becomes private memory without a file again, with the content the guest sees."""

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from functools import partial

from ksmtuned_py.door import Door
from ksmtuned_py.guests.cgroups import process_room_bytes
from ksmtuned_py.scanner.pagemap import PAGE
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.foothold.session import Session, Window
from ksmtuned_py.scanner.remap.processors.architecture import NR
from ksmtuned_py.scanner.remap.processors.layout import END
from ksmtuned_py.scanner.remap.refuse.eligibility import Eligible
from ksmtuned_py.scanner.remap.share.intact import change
from ksmtuned_py.scanner.remap.share.runs import PageRun, advise, bind, closed, in_turn
from ksmtuned_py.scanner.remap.stop.stops import patiently
from ksmtuned_py.sensors.memory import read_memory
from ksmtuned_py.units import MIB

_PAGES = 256
"""Pages given back in one window, which takes about 1 ms."""
_PIECE_PAGES = 16
"""What a piece costs, however short, counted in pages: the guest is told twice what to do."""
_RESERVE_BYTES, _HOST_RESERVE_BYTES = 16 * MIB, 256 * MIB
"""Memory that must be free, in a guest's control group and on the host, before a window is given back."""
_READ_WRITE, _PRIVATE, _ANONYMOUS, _NORESERVE = 3, 2, 0x20, 0x4000
_MAYMOVE_FIXED = 3


class NoRoomThere(Refused):
    """Raised when giving back would take more memory than there is for it."""


def give_back(
    door: Door,
    process: Process,
    session: Session,
    merged: list[Eligible],
    standing: Callable[[], AbstractContextManager[Window]],
    until_seconds: float,
) -> Generator[int, None, bool]:
    """Gives pages back window by window, one at least, until that time; returns whether all are given back.

    Yields pages. Raises NoRoom, Refused and Gone.
    """
    mem = os.open("mem", os.O_RDWR | os.O_CLOEXEC, dir_fd=process.directory)
    try:
        for some in _portions(merged):
            refuse_without_room(door, process)
            bring_in(process, [(address, length) for address, length, _ in some])
            portion = partial(_portion, process, session, mem, some, standing)
            yield from patiently(session.stops, process.target.pid, portion)
            yield sum(length for _, length, _ in some) // PAGE
            if time.monotonic() >= until_seconds:
                return False
    finally:
        os.close(mem)
    return True


def _portion(
    process: Process,
    session: Session,
    mem: int,
    some: list[tuple[int, int, Eligible]],
    standing: Callable[[], AbstractContextManager[Window]],
) -> None:
    with standing() as window:
        if reason := change(process, [PageRun(address, length // PAGE, 0, one) for address, length, one in some]):
            raise Refused(reason)
        for address, length, one in some:
            _one(process, session, window, mem, address, length, one)


def bring_in(process: Process, some: list[tuple[int, int]]) -> None:
    """Has what was swapped out at these addresses read in while the guest still runs, for a disk may take longer.

    A stop would wait for it. Each address comes with a length.
    """
    for address, length in some:
        process.read([memoryview(bytearray(length))], address)


def refuse_without_room(door: Door, process: Process) -> None:
    """Raises NoRoom unless the guest's control group and the host can take the pages.

    A group was not charged for pages that its guest shares; given back, they are charged to it.
    """
    room = process_room_bytes(door, process.read_text("cgroup"))
    if room is not None and room < _RESERVE_BYTES:
        raise NoRoomThere("the memory limit of its control group leaves no room for its own copies: they stay merged")
    memory = read_memory(door)
    if memory.headroom_bytes + memory.swap_free_bytes < _HOST_RESERVE_BYTES:
        raise NoRoomThere("the host has no room for its own copies: they stay merged")


def _portions(merged: list[Eligible]) -> Iterator[list[tuple[int, int, Eligible]]]:
    """Yields addresses and lengths of pieces, as many as fit into a window."""
    some: list[tuple[int, int, Eligible]] = []
    space = _PAGES
    for one in merged:
        for address in range(one.mapping.start, one.mapping.end, _PAGES * PAGE):
            length = min(one.mapping.end - address, _PAGES * PAGE)
            if some and space < length // PAGE + _PIECE_PAGES:
                yield some
                some, space = [], _PAGES
            some.append((address, length, one))
            space -= length // PAGE + _PIECE_PAGES
    if some:
        yield some


def _one(
    process: Process, session: Session, window: Window, mem: int, address: int, length: int, one: Eligible
) -> None:
    """Fills a copy beside the piece while all threads stand still, then moves it over the piece in one step."""
    copy = copy_beside(session, window, length, one)
    fill(process, session, window, mem, address, length, copy)
    move_over(session, window, address, length, one, copy)


def copy_beside(session: Session, window: Window, length: int, one: Eligible) -> int:
    """Maps memory without a file in the guest, with the mapping's NUMA policy; returns its address. Raises Refused."""
    flags = _PRIVATE | _ANONYMOUS | (0 if one.reserve else _NORESERVE)
    copy = window.run([(NR["mmap"], (0, length, _READ_WRITE, flags, -1, 0), END, END)])[0]
    if copy < 0:
        raise Refused(f"mmap in it failed: {os.strerror(-copy)}")
    session.stage(copy, length)
    if one.policy:
        session.area.put_nodes(one.policy.nodes)
        binding = closed(in_turn(bind(copy, length, one, session.area.nodes_address), 0))
        if (failed := window.run(binding)[0]) < 0:
            discard(session, window, copy, length)
            raise Refused(f"mbind in it failed: {os.strerror(-failed)}")
    return copy


def fill(process: Process, session: Session, window: Window, mem: int, address: int, length: int, copy: int) -> None:
    """Fills the copy with what the guest sees at the address; raises Refused, without a copy any more."""
    content = bytearray(length)
    if process.read([memoryview(content)], address) != length or os.pwrite(mem, content, copy) != length:
        discard(session, window, copy, length)
        raise Refused("some of its memory cannot be read: it stays merged")


def discard(session: Session, window: Window, copy: int, length: int) -> None:
    """Unmaps a copy."""
    window.run([(NR["munmap"], (copy, length), END, END)])
    session.stage(0, 0)


def move_over(session: Session, window: Window, address: int, length: int, one: Eligible, copy: int) -> None:
    """Moves the copy over what is there, in one step; raises Refused."""
    move = (NR["mremap"], (copy, length, length, _MAYMOVE_FIXED, address))
    still_there = (NR["mincore"], (address, length, session.area.vector_address), 3, END)
    undo = (NR["munmap"], (copy, length), END, END)
    table = [(*move, 4, 1), (*move, 4, 2), still_there, undo, *in_turn(advise(address, length, one), 4)]
    session.stage(0, 0)
    results = window.run(closed(table))
    if min(results[0], results[1]) < 0 <= max(results[0], results[1]):
        return
    if results[0] < 0:
        raise Refused(f"mremap in it failed: {os.strerror(-results[0])}")
