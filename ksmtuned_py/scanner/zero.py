"""Gives back pages of zeros: the kernel swaps them out (process_madvise PAGEOUT), which for zeros costs no I/O.

The kernel handles every race, pin and virtual machine mapping by itself. A page that is touched again is a fresh page
of zeros. So the worst that can happen is work for nothing, and the back-off is for that. Whatever the kernel refuses is
refused for a mapping or for a guest, and says nothing about the others.
"""

import ctypes
import errno
import os
import time

import numpy as np

from ksmtuned_py.door import Door
from ksmtuned_py.guests.balloon import parse_balloon
from ksmtuned_py.scanner import pagemap
from ksmtuned_py.scanner.backoff import Account
from ksmtuned_py.scanner.pagemap import PAGE, Kind, Runs, joined
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.table import PageNumbers, Slab, numbers
from ksmtuned_py.scanner.zeroplace import zero_swapouts

_PROCESS_MADVISE = 440  # the same number on every architecture; Linux 5.10+
_MADV_PAGEOUT = 21
_OF_THE_MAPPING = (errno.EINVAL, errno.ENOMEM)
"""Errors that mean: the mapping is locked, is never swapped, or was unmapped in part since we looked."""
_MOST_LOCKED = 100
REPORTING = "its zero pages are left alone: it gives free memory back by itself (free page reporting), which is better"
_libc = ctypes.CDLL(None, use_errno=True)


class Zeros:
    """Pages out the zero pages of one guest."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def find_back(self, process: Process, slab: Slab, account: Account) -> None:
        """Finds which of the slab's pages have come back; raises Gone."""
        if len(slab.paged_out):
            out = np.sort(slab.paged_out)
            slab.paged_out = _in(out, _of_kind(process, slab, out, pagemap.GIVEN_BACK))
            account.back_pages += len(out) - len(slab.paged_out)

    def page_out(self, process: Process, slab: Slab, zeros: PageNumbers, account: Account, *, split_huge: bool) -> None:
        """Pages out these pages, which were zero a moment ago; raises Gone."""
        if account.reporting is None:
            _ask_for_reporting(process, account)
        if not account.may_go(time.monotonic()):
            return
        asked = zeros if split_huge else _in(zeros, _of_kind(process, slab, zeros, pagemap.PRIVATE_SMALL))
        asked = _not_locked(slab, asked, account)
        if not len(asked):
            return
        near = slab.zeros_near(asked)
        before = zero_swapouts(self._door)
        try:
            _page_out(process, joined(asked, slab.base), account.locked)
        except Refused as refused:
            account.leave_alone(refused.reason, time.monotonic())
            return
        self._judge(process, slab, _not_locked(slab, asked, account), near, account, before)

    def _judge(
        self,
        process: Process,
        slab: Slab,
        asked: PageNumbers,
        near: PageNumbers,
        account: Account,
        zeros_before: int | None,
    ) -> None:
        """Judges by the kernel's own count whether they went without I/O."""
        if not len(asked):
            return
        zeros_after = zero_swapouts(self._door)
        # Since Linux 6.12 a huge page that is split for some of its zeros gives all of them back.
        gone = _in(near, _of_kind(process, slab, near, pagemap.GIVEN_BACK))
        account.back_pages += len(asked) - int(np.count_nonzero(np.isin(asked, gone, assume_unique=True)))
        slab.paged_out = np.concatenate((slab.paged_out, gone))
        if zeros_before is not None and zeros_after is not None:
            swapped = _in(asked, _of_kind(process, slab, asked, pagemap.SWAPPED))
            account.swapped(len(swapped), zeros_after - zeros_before, time.monotonic())


def _of_kind(process: Process, slab: Slab, pages: PageNumbers, kind: Kind) -> PageNumbers:
    if not len(pages):
        return pages
    start, end = (slab.base + page * PAGE for page in (int(pages[0]), int(pages[-1]) + 1))
    return numbers(process.runs(start, end, kind), slab.base)


def _not_locked(slab: Slab, pages: PageNumbers, account: Account) -> PageNumbers:
    """Leaves out pages in mappings that the kernel has refused, and counts them."""
    addresses = pages.astype(np.uint64) * np.uint64(PAGE) + np.uint64(slab.base)
    free = np.ones(len(pages), np.bool_)
    for start, end in account.locked:
        free &= (addresses < start) | (addresses >= end)
    account.locked_pages += len(pages) - int(np.count_nonzero(free))
    return pages[free]


def _page_out(process: Process, found: Runs, locked: list[tuple[int, int]]) -> None:
    """Asks the kernel to page out all runs; adds refused mappings to `locked`. Raises Refused, Gone.

    The kernel ends a call at the first run that it does not take, and says how far it came.
    """
    left: list[list[int]] = found.tolist()
    while left:
        done, error = _process_madvise(process.pidfd, left)
        left = _behind(left, done)
        if error in _OF_THE_MAPPING:
            left = _cut(process, left[0], locked) + left[1:]
            if len(locked) > _MOST_LOCKED:
                raise Refused("too many of its mappings are locked")
        elif error == errno.ESRCH:
            return
        elif error or not done:
            missing = ", CAP_SYS_NICE is missing" if error == errno.EPERM else ""
            raise Refused(f"process_madvise: {os.strerror(error)}{missing}")


def _behind(runs: list[list[int]], done_bytes: int) -> list[list[int]]:
    """Returns what is left of the runs after so many bytes."""
    for index, (start, end) in enumerate(runs):
        if done_bytes < end - start:
            return [[start + done_bytes, end], *runs[index + 1 :]]
        done_bytes -= end - start
    return []


def _cut(process: Process, run: list[int], locked: list[tuple[int, int]]) -> list[list[int]]:
    """Cuts a refused run at the borders of mappings; one that lies within a mapping makes that mapping one of them."""
    start, end = run
    mappings = [one for one in process.mappings() if one.start < end and one.end > start]
    pieces = [[max(start, one.start), min(end, one.end)] for one in mappings]
    if pieces != [run]:
        return pieces
    locked.append((mappings[0].start, mappings[0].end))
    return []


def _ask_for_reporting(process: Process, account: Account) -> None:
    """Notes whether the guest reports its free pages: its zeros then are in use, or too small to be reported."""
    account.reporting = parse_balloon(process.read_text("cmdline").split("\0")).reports_free_pages
    account.reason = REPORTING if account.reporting else None


def _in(pages: PageNumbers, found: PageNumbers) -> PageNumbers:
    return pages[np.isin(pages, found, assume_unique=True)]


def _process_madvise(pidfd: int, runs: list[list[int]]) -> tuple[int, int]:
    """Returns the bytes that were taken, and the errno when none were."""
    vectors = np.array(runs, np.uint64)
    vectors[:, 1] -= vectors[:, 0]  # struct iovec: base, length
    done = _libc.syscall(
        _PROCESS_MADVISE,
        ctypes.c_int(pidfd),
        ctypes.c_void_p(vectors.ctypes.data),
        ctypes.c_size_t(len(vectors)),
        ctypes.c_int(_MADV_PAGEOUT),
        ctypes.c_uint(0),
    )
    return (0, ctypes.get_errno()) if done < 0 else (done, 0)
