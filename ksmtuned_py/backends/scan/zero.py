"""Gives back pages of zeros: the kernel swaps them out (process_madvise PAGEOUT), which for zeros costs no I/O.

The kernel handles every race, pin and virtual machine mapping by itself; a page that is touched again is a fresh page
of zeros. So the worst that can happen is work for nothing, and the back-off is for that.
"""

import ctypes
import errno
import os
import time

import numpy as np

from ksmtuned_py.backends.scan import pagemap
from ksmtuned_py.backends.scan.backoff import Account
from ksmtuned_py.backends.scan.pagemap import PAGE, Kind, Runs, joined
from ksmtuned_py.backends.scan.process import Process
from ksmtuned_py.backends.scan.table import PageNumbers, Slab, numbers
from ksmtuned_py.backends.scan.zeroplace import place_refusal, zero_swapouts
from ksmtuned_py.door import Door
from ksmtuned_py.guests.balloon import parse_balloon

_PROCESS_MADVISE = 440  # the same number on every architecture; Linux 5.10+
_MADV_PAGEOUT = 21
_MOST_VECTORS = 512  # UIO_MAXIOV is 1024
_FEW = 64
"""The kernel counts what others swap out meanwhile, too."""
REPORTING = "its zero pages are left alone: it gives free memory back by itself (free page reporting), which is better"
_libc = ctypes.CDLL(None, use_errno=True)


class Zeros:
    """Pages out what is zero, where that is safe."""

    def __init__(self, door: Door, *, to_disk: bool) -> None:
        self._door = door
        self._to_disk = to_disk
        self._ended = ""

    def refusal(self) -> str:
        """Why nothing is paged out on this host now; '' when it may be."""
        return self._ended or place_refusal(self._door, to_disk=self._to_disk)

    def slab(self, process: Process, slab: Slab, account: Account, *, act: bool, split_huge: bool) -> None:
        """Looks after the zero pages of a slab that was just read, and pages out the new ones; raises Gone."""
        kept = self._still_out(process, slab)
        account.back_pages += len(slab.paged_out) - len(kept)
        if act and account.reporting is None:
            _ask_for_reporting(process, account)
        asked = slab.steady_zeros() if act and account.may_go(time.monotonic()) else slab.pages[:0]
        if len(asked) and not split_huge:
            asked = _in(asked, self._of_kind(process, slab, asked, pagemap.PRIVATE_SMALL))
        if len(asked):
            gone = self._give_back(process, slab, asked)
            account.back_pages += len(asked) - len(gone)
            kept = np.union1d(kept, gone)
        slab.paged_out = kept

    def _give_back(self, process: Process, slab: Slab, asked: PageNumbers) -> PageNumbers:
        """Those that went."""
        before = zero_swapouts(self._door)
        self._page_out(process, joined(asked, slab.base))
        swapped = _in(asked, self._of_kind(process, slab, asked, pagemap.SWAPPED))
        self._verify(len(swapped), before)
        return _in(asked, self._of_kind(process, slab, asked, pagemap.GIVEN_BACK))

    def _still_out(self, process: Process, slab: Slab) -> PageNumbers:
        if not len(slab.paged_out):
            return slab.paged_out
        return _in(slab.paged_out, self._of_kind(process, slab, slab.paged_out, pagemap.GIVEN_BACK))

    def _of_kind(self, process: Process, slab: Slab, pages: PageNumbers, kind: Kind) -> PageNumbers:
        start, end = (slab.base + page * PAGE for page in (int(pages[0]), int(pages[-1]) + 1))
        return numbers(process.runs(start, end, kind), slab.base)

    def _page_out(self, process: Process, found: Runs) -> None:
        for begin in range(0, len(found), _MOST_VECTORS):
            part = found[begin : begin + _MOST_VECTORS]
            error = _process_madvise(process.pidfd, part)
            if error:
                missing = ", CAP_SYS_NICE is missing" if error == errno.EPERM else ""
                self._ended = f"process_madvise: {os.strerror(error)}{missing}"
                return

    def _verify(self, gone: int, before: int | None) -> None:
        """The kernel's own count must say that they went without I/O; otherwise this was the last time."""
        after = zero_swapouts(self._door)
        if before is not None and after is not None and gone > _FEW and after - before < gone // 2:
            self._ended = f"{gone} zero pages were swapped out, but the kernel counts {after - before} as zero"


def _ask_for_reporting(process: Process, account: Account) -> None:
    """What a guest that reports its free pages still has as zeros is in use, or too small to be reported."""
    account.reporting = parse_balloon(process.read_text("cmdline").split("\0")).reports_free_pages
    account.reason = REPORTING if account.reporting else ""


def _in(pages: PageNumbers, found: PageNumbers) -> PageNumbers:
    return pages[np.isin(pages, found, assume_unique=True)]


def _process_madvise(pidfd: int, found: Runs) -> int:
    """The errno; 0 when the kernel took it, and also when the process has ended."""
    vectors = found.copy()
    vectors[:, 1] -= vectors[:, 0]  # struct iovec: base, length
    done = _libc.syscall(
        _PROCESS_MADVISE,
        ctypes.c_int(pidfd),
        ctypes.c_void_p(vectors.ctypes.data),
        ctypes.c_size_t(len(vectors)),
        ctypes.c_int(_MADV_PAGEOUT),
        ctypes.c_uint(0),
    )
    error = ctypes.get_errno() if done < 0 else 0
    # ESRCH: it has ended. ENOMEM: part of it was unmapped since we looked; the next pass will see.
    return 0 if error in (3, 12) else error
