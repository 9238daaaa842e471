"""Finds which pages of a process are in memory, and of what kind: PAGEMAP_SCAN (Linux 6.7+) or /proc/PID/pagemap.

Source: Documentation/admin-guide/mm/pagemap.rst and include/uapi/linux/fs.h (struct pm_scan_arg).
"""

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ksmtuned_py.door import Door
from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES

PAGE = OWN_PAGE_BYTES
Runs = NDArray[np.uint64]
"""Rows of (start, end), byte addresses, ascending."""

_FILE, _PRESENT, _SWAPPED, _PFNZERO, _HUGE = 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6
_PAGEMAP_SCAN = 0xC0606610  # _IOWR('f', 16, 96 bytes)
_ARGUMENT = struct.Struct("=12Q")
_VECTOR_LENGTH = 4096
"""Runs per call: 96 KiB of results."""
_NO_RUNS: Runs = np.empty((0, 2), np.uint64)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of pages: they have all flags of `having`, none of `lacking`, and, unless it is 0, one of `any_of`."""

    having: int = 0
    lacking: int = 0
    any_of: int = 0


PRIVATE = Kind(having=_PRESENT, lacking=_SWAPPED | _FILE | _PFNZERO)
"""Pages in memory of this process alone, but not the zero page. Swapped pages would have to be read in first."""
PRIVATE_SMALL = Kind(having=_PRESENT, lacking=_SWAPPED | _FILE | _PFNZERO | _HUGE)
"""Pages as in PRIVATE but for huge pages, which would have to be split first."""
MAPPED_SMALL = Kind(lacking=_HUGE, any_of=_PRESENT | _SWAPPED)
"""Pages of any kind but huge ones, for each of which a page table has an entry."""
IN_MEMORY = Kind(having=_PRESENT, lacking=_SWAPPED)
HUGE = Kind(having=_PRESENT | _HUGE)
"""Pages in huge pages, of which kernels before 6.7 do not tell."""
SWAPPED = Kind(having=_SWAPPED, lacking=_FILE)
OF_THE_ZERO_PAGE = Kind(having=_PRESENT | _PFNZERO)
"""Pages of zeros that take no memory, and would take some in a huge page."""
GIVEN_BACK = Kind(lacking=_FILE, any_of=_SWAPPED | _PFNZERO)
"""Pages of zeros that take no memory: Linux 6.12+ maps the shared zero page for those of a huge page it splits."""
COPIED = Kind(lacking=_FILE, any_of=_PRESENT | _SWAPPED)
"""Private pages over a file: in a merged range, those that were written to since."""


def runs(pagemap: int, start: int, end: int, kind: Kind) -> Runs:
    """Returns the runs of such pages in [start, end); raises OSError (ESRCH when the process is gone)."""
    try:
        return _scan(pagemap, start, end, kind)
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL):
            raise
    return from_words(pagemap, start, end, kind)


def tells_huge(pagemap: int) -> bool:
    """Whether the kernel tells huge pages apart (PAGEMAP_SCAN); raises OSError."""
    try:
        _scan(pagemap, 0, PAGE, HUGE)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            return False
        raise
    return True


def page_count(found: Runs) -> int:
    """Returns how many pages the runs have."""
    return int((found[:, 1] - found[:, 0]).sum()) // PAGE


def page_numbers(found: Runs, base: int) -> NDArray[np.uint32]:
    """Returns every page of the runs, as its number counted from the address base."""
    starts = ((found[:, 0] - np.uint64(base)) // np.uint64(PAGE)).astype(np.uint32)
    counts = ((found[:, 1] - found[:, 0]) // np.uint64(PAGE)).astype(np.uint32)
    ends = np.cumsum(counts, dtype=np.uint32)
    return np.arange(ends[-1] if len(ends) else 0, dtype=np.uint32) + np.repeat(starts + counts - ends, counts)


def joined(pages: NDArray[Any], base: int) -> Runs:
    """Returns the runs of ascending page numbers, which count from the address base."""
    if not len(pages):
        return _NO_RUNS
    numbers = pages.astype(np.uint64)
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    starts = numbers[np.concatenate(([0], breaks))]
    ends = numbers[np.concatenate((breaks - 1, [len(numbers) - 1]))] + np.uint64(1)
    return np.stack((starts, ends), axis=1) * np.uint64(PAGE) + np.uint64(base)


def _scan(pagemap: int, start: int, end: int, kind: Kind) -> Runs:
    length = min(_VECTOR_LENGTH, (end - start) // PAGE)
    vector = np.empty((length, 3), np.uint64)
    parts = []
    while start < end:
        argument = bytearray(
            _ARGUMENT.pack(
                _ARGUMENT.size, 0, start, end, 0, vector.ctypes.data, length, 0,
                kind.lacking, kind.having | kind.lacking, kind.any_of, _PRESENT,
            )
        )  # fmt: skip
        found = fcntl.ioctl(pagemap, _PAGEMAP_SCAN, argument)
        parts.append(vector[:found, :2].copy())
        start = _ARGUMENT.unpack(argument)[4]  # walk_end: the scan stopped here because the results were full
        if found == 0:
            break
    return np.concatenate(parts) if parts else _NO_RUNS


def from_words(pagemap: int, start: int, end: int, kind: Kind) -> Runs:
    """Returns the same runs from /proc/PID/pagemap, for kernels before 6.7; it does not tell huge pages apart."""
    text = os.pread(pagemap, (end - start) // PAGE * 8, start // PAGE * 8)
    words = np.frombuffer(text, np.uint64)
    categories = np.zeros(len(words), np.uint64)
    for bit, category in ((63, _PRESENT), (62, _SWAPPED), (61, _FILE)):
        categories |= ((words >> np.uint64(bit)) & np.uint64(1)) * np.uint64(category)
    frames = words & np.uint64((1 << 55) - 1)
    zero_frame = _zero_frame()
    if zero_frame:
        categories |= ((frames == zero_frame) & (words >> np.uint64(63) == 1)) * np.uint64(_PFNZERO)
    wanted = (categories & np.uint64(kind.having)) == kind.having
    wanted &= (categories & np.uint64(kind.lacking)) == 0
    if kind.any_of:
        wanted &= (categories & np.uint64(kind.any_of)) != 0
    return joined(np.flatnonzero(wanted), start)


def _zero_frame() -> int:
    """Returns the frame of the shared zero page, seen in our own memory; 0 without the right to see frames."""
    with mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        assert memory[0] == 0  # a read fault maps the shared page
        anchor = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(anchor)
        del anchor
        with Door().holding("proc/self") as directory:
            own = os.open("pagemap", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            word = int.from_bytes(os.pread(own, 8, address // PAGE * 8), "little")
        finally:
            os.close(own)
        return word & ((1 << 55) - 1)
