"""Makes split huge pages of one guest whole again, from outside and in portions, in a throw-away process.

process_madvise(MADV_COLLAPSE) (Linux 6.1 and newer) copies the pages of a range into a new huge page, merged pages and
the zero page included. The kernel guards it: the guest waits for a page that is being copied, and its contents stay.
One merged page that is mapped twice in a range would have to be locked twice, so its second copies are unshared before.

The process writes what it found as one line, and then answers each line with a bound and a number: it gives back so
many ranges with at most so many merged pages, those with the fewest first. Everything is looked at again just before.
An empty line each second shows that it goes on. The process ends with its standard input.
"""

import ctypes
import errno
import json
import os
import struct
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fcntl import ioctl

from ksmtuned_py.door import Door
from ksmtuned_py.guests.cgroups import is_frozen
from ksmtuned_py.guests.hugepages import HugePages, read_huge_pages
from ksmtuned_py.guests.mappings import Mapping, parse_maps
from ksmtuned_py.guests.smaps import parse_blocks
from ksmtuned_py.model.hugeplan import Portion
from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES
from ksmtuned_py.sensors.stat import parse_stat
from ksmtuned_py.sensors.status import is_migration, is_stopped, parse_status, status_bytes
from ksmtuned_py.undo.unshare import ALONE, FRAME, KPF_KSM, PRESENT, Reader, be_a_helper, open_kpageflags

PAGE = OWN_PAGE_BYTES
CHUNK_PAGES = 1 << 14
"""The pages of one read of pagemap, whose entries take 128 KiB."""
KPF_ZERO_PAGE = 1 << 24
SIGN_SECONDS = 1.0
DESCRIPTORS_MAX = 4096
USERFAULTFD = "anon_inode:[userfaultfd]"
# include/uapi/linux/fs.h (struct pm_scan_arg), asm-generic/unistd.h and asm-generic/mman-common.h
_PAGEMAP_SCAN, _SCAN, _IS_HUGE, _IS_ZERO = 0xC0606610, struct.Struct("=12Q"), 1 << 6, 1 << 5
_SEE_FRAMES = "see frames (CAP_SYS_ADMIN)"
_PROCESS_MADVISE, _MADV_COLLAPSE = 440, 25
_NO_MEMORY = {errno.ENOMEM: "no memory in one piece is left for a huge page", errno.EBUSY: "its cgroup has no room"}


@dataclass(slots=True)
class SplitRange:
    """A split range."""

    merged: int
    """Its pages that are merged, or the zero page."""
    again: list[int] = field(default_factory=list)
    """The addresses of the second copies of merged pages that are mapped twice in it."""


class Ranges:
    """The memory of one process in pieces of the size of a huge page, read through a descriptor on it."""

    def __init__(self, door: Door, pid: int, start_ticks: int, kernel: HugePages, share: float) -> None:
        """Open the process; raises OSError when it is gone, or when we may not read it.

        All that is done afterwards takes at most such a share of a core.
        """
        self.range_pages = kernel.size_bytes // PAGE
        self.huge = self.left = 0
        self._door = door
        self._kernel = kernel
        self._directory = door.hold(f"proc/{pid}")
        self._pidfd = os.pidfd_open(pid)
        with _needing("look into it (CAP_SYS_PTRACE)"):
            self._pagemap = os.open("pagemap", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        self._kpageflags = open_kpageflags(door)
        if self._kpageflags is None:
            raise _not_permitted(_SEE_FRAMES)
        # Only now, so that all of the above belongs to it.
        if parse_stat(door.read("stat", at=self._directory)).start_ticks != start_ticks:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        self._reader = Reader(pid)
        self._share = share
        self._rested_at_seconds = time.process_time()
        self._by_merged = [array("Q") for _ in range(self.range_pages + 1)]
        self._said_seconds = time.monotonic()

    def refusal(self) -> str | None:
        """Why the process is left alone now; None when it is not."""
        status = parse_status(self._door.read("status", at=self._directory))
        if is_stopped(status) or is_frozen(self._door, self._door.read("cgroup", at=self._directory)):
            return "it is stopped or frozen"
        if status_bytes(status, "VmLck"):
            return "its memory is locked (mlock), so that it waits for no page"
        if any(map(is_migration, self._thread_names())):
            return "it is being migrated, or a snapshot of it is taken"
        if USERFAULTFD in self._door.links("fd", DESCRIPTORS_MAX, at=self._directory):
            return "its memory is filled on demand (userfaultfd)"
        return None

    def survey(self) -> list[int]:
        """Look at all ranges, and return how many have none, one, two, and more merged pages."""
        for mapping in self._mappings():
            first = -(-mapping.start // self._kernel.size_bytes) * self._kernel.size_bytes
            last = mapping.end // self._kernel.size_bytes * self._kernel.size_bytes
            step = max(CHUNK_PAGES, self.range_pages) * PAGE
            for start in range(first, last, step):
                self._survey_chunk(start, min(step, last - start))
        return [len(addresses) for addresses in self._by_merged]

    def give_back(self, bound: int, count: int) -> Portion:
        """Give back `count` of the ranges with at most so many merged pages, those with the fewest first."""
        began, told = time.process_time(), Portion()
        told.problem = self.refusal()
        while told.more and not told.problem and count > 0:
            address = self._next(bound)
            told.more = address is not None
            if address is not None:
                count -= 1
                self._give_back_one(address, bound, told)
                self._rest()
        told.cpu_seconds = time.process_time() - began
        return told

    def _next(self, bound: int) -> int | None:
        return next((addresses.pop() for addresses in self._by_merged[: bound + 1] if addresses), None)

    def _give_back_one(self, address: int, bound: int, told: Portion) -> None:
        words = self._words(address, self.range_pages)
        if not words:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        look = self._look(words, address)
        if look is None or look.merged > bound or self._huge_ranges(address, self._kernel.size_bytes):
            told.left += 1
            return
        with _needing("unshare its pages (CAP_SYS_PTRACE)"):
            self._reader.read(look.again)
        error = _collapse(self._pidfd, address, self._kernel.size_bytes)
        if self._huge_ranges(address, self._kernel.size_bytes):
            told.given += 1
            told.paid += look.merged
        elif error in (errno.EPERM, errno.EACCES):
            raise _not_permitted("make huge pages of its memory (CAP_SYS_NICE)")
        else:
            told.failed += 1
            told.problem = _NO_MEMORY.get(error)

    def _mappings(self) -> Iterator[Mapping]:
        """The private memory in which the kernel makes huge pages."""
        if self._kernel.enabled == "always":
            found = iter(parse_maps(self._door.read("maps", at=self._directory)))
        else:  # only where it was asked for
            blocks = parse_blocks(self._door.read("smaps", at=self._directory))
            found = (mapping for mapping, lines in blocks if "hg" in lines.get("VmFlags", "").split())
        return (mapping for mapping in found if mapping.anonymous and not mapping.merged)

    def _survey_chunk(self, start: int, size: int) -> None:
        self._say_that_we_live()
        self._rest()
        words = self._words(start, size // PAGE)
        if not any(words):
            return
        huge = self._huge_ranges(start, size)
        for place in range(0, size // PAGE, self.range_pages):
            address = start + place * PAGE
            if address in huge:
                self.huge += 1
            elif any(some := words[place : place + self.range_pages]):
                if (look := self._look(some, address)) is None:
                    self.left += 1
                else:
                    self._by_merged[look.merged].append(address)

    def _look(self, words: "array[int]", address: int) -> SplitRange | None:
        """What is in a range; None when pages are missing, in swap, or shared by more than merging."""
        if len(words) < self.range_pages or min(words) < PRESENT:
            return None
        look, seen = SplitRange(0), set[int]()
        for place, word in enumerate(words):
            if word & ALONE:
                continue
            flags = self._flags(word & FRAME)
            if not flags & (KPF_KSM | KPF_ZERO_PAGE):
                return None
            look.merged += 1
            if word & FRAME in seen and flags & KPF_KSM:
                look.again.append(address + place * PAGE)
            seen.add(word & FRAME)
        return look

    def _words(self, start: int, pages: int) -> "array[int]":
        """The entries of pagemap; none when the memory is gone, as after an exec."""
        return array("Q", os.pread(self._pagemap, pages * 8, start // PAGE * 8))

    def _flags(self, frame: int) -> int:
        """The use of a frame of the host."""
        assert self._kpageflags is not None
        if not frame:
            raise _not_permitted(_SEE_FRAMES)
        return int.from_bytes(os.pread(self._kpageflags, 8, frame * 8), sys.byteorder)

    def _huge_ranges(self, start: int, size: int) -> set[int]:
        """The addresses of the huge pages, but for the huge zero page; before Linux 6.7 of what lies like one."""
        found = array("Q", bytes(24 * (size // self._kernel.size_bytes)))
        place, length = found.buffer_info()
        argument = bytearray(
            _SCAN.pack(
                _SCAN.size, 0, start, start + size, 0, place, length // 3, 0,
                _IS_ZERO, _IS_HUGE | _IS_ZERO, 0, _IS_HUGE,
            )
        )  # fmt: skip
        try:
            count = ioctl(self._pagemap, _PAGEMAP_SCAN, argument)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                raise
            return self._in_a_row(start, size)
        runs = (found[3 * number : 3 * number + 2] for number in range(count))
        return {address for low, high in runs for address in range(low, high, self._kernel.size_bytes)}

    def _in_a_row(self, start: int, size: int) -> set[int]:
        words, pages, found = self._words(start, size // PAGE), self.range_pages, set[int]()
        for place in range(0, len(words), pages):
            first = words[place]
            whole = first & PRESENT and first & ALONE and (first & FRAME) % pages == 0
            if whole and words[place : place + pages] == array("Q", range(first, first + pages)):
                found.add(start + place * PAGE)
        return found

    def _thread_names(self) -> Iterator[str]:
        tasks = os.open("task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            for thread in os.listdir(tasks):  # noqa: PTH208 - of a descriptor
                with suppress(OSError):  # it has ended
                    yield self._door.read(f"{thread}/comm", at=tasks)
        finally:
            os.close(tasks)

    def _rest(self) -> None:
        """Sleep as long as the share of a core wants after what was done since the last time."""
        took = time.process_time() - self._rested_at_seconds
        time.sleep(took / self._share - took)
        self._rested_at_seconds = time.process_time()

    def _say_that_we_live(self) -> None:
        now_seconds = time.monotonic()
        if now_seconds - self._said_seconds > SIGN_SECONDS:
            self._said_seconds = now_seconds
            os.write(1, b"\n")


def main(pid: int, start_ticks: int, share: float) -> None:
    """Survey one process, and give ranges back for each line of standard input, until either ends."""
    door = Door()
    be_a_helper(door)
    ranges = Ranges(door, pid, start_ticks, read_huge_pages(door), share)
    split = ranges.survey()
    _say(range_pages=ranges.range_pages, huge=ranges.huge, split=split, left=ranges.left)
    while line := sys.stdin.buffer.readline():
        bound, count = map(int, line.split())
        told = ranges.give_back(bound, count)
        _say(**{name: getattr(told, name) for name in Portion.__slots__})


@contextmanager
def _needing(right: str) -> Iterator[None]:
    """Name the right that a with block needs, where it is refused."""
    try:
        yield
    except PermissionError as error:
        raise _not_permitted(right) from error


def _not_permitted(right: str) -> PermissionError:
    return PermissionError(errno.EPERM, f"not permitted to {right}")


def _collapse(pidfd: int, address: int, size: int) -> int:
    """Have the kernel make a huge page of a range, and return the number of its error; 0 without one."""
    vector = array("Q", [address, size])
    call = ctypes.CDLL(None, use_errno=True).syscall
    words = (_PROCESS_MADVISE, pidfd, vector.buffer_info()[0], 1, _MADV_COLLAPSE, 0)
    return ctypes.get_errno() if call(*map(ctypes.c_long, words)) < 0 else 0


def _say(**answer: object) -> None:
    os.write(1, f"{json.dumps(answer)}\n".encode())


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    except OSError as error:
        sys.exit(error.strerror or str(error))
