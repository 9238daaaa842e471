"""Gives one guest its own copies of its merged pages, from outside and in portions, in a throw-away process.

Reading one byte of a page with process_vm_readv pins it for reading. A pinned page has to be the guest's own, so the
kernel copies a shared page first (mm/gup.c, gup_must_unshare; Linux 5.19 and newer). Its content stays, nothing is
stopped, and ksmd's mutex is not needed. It can be left off after any portion. The copies are charged to the guest.

Whoever locks the guest's memory map delays this process alone. The kernel kills this process first when memory runs
out. It writes the number of merged pages, and then does a portion for each line that it is sent. After a portion it
writes the number of its pages, and how many of them are the guest's own now. Finding the pages takes a minute for a
TiB. An empty line each second shows that it goes on. The process ends with its standard input.
"""

import ctypes
import errno
import os
import signal
import sys
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from ksmtuned_py.door import Door
from ksmtuned_py.guests.mappings import Mapping, parse_maps
from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES
from ksmtuned_py.sensors.stat import parse_stat

PAGE = OWN_PAGE_BYTES
PORTION_PAGES = 4096
"""The pages of one portion, 16 MiB. They take some 20 ms, and the next check of the room comes after them."""
_WORDS_AT_ONCE = 1 << 14
"""The pages of one read of pagemap, whose entries take 128 KiB."""
_NOTHING = bytes(8 * _WORDS_AT_ONCE)
_SIGN_SECONDS = 1.0
_CALL_PAGES = 1024
"""The most addresses that one call takes (IOV_MAX)."""
# Documentation/admin-guide/mm/pagemap.rst: bit 63 is set in memory, 61 for a file or shared memory, and 56 for a page
# that is mapped only once, so not for a merged one. Bits 0 to 54 are the frame, or 0 without CAP_SYS_ADMIN.
PRESENT, _FILE, ALONE, FRAME = 1 << 63, 1 << 61, 1 << 56, (1 << 55) - 1
KPF_KSM = 1 << 21
_OOM_FIRST = "1000"


class MergedPages:
    """The pages of one process, read through a descriptor on its directory in /proc."""

    def __init__(self, door: Door, pid: int, start_ticks: int) -> None:
        """Open the process; raises OSError when it is gone, or when we may not read it."""
        self.pid = pid
        self._door = door
        self._directory = door.hold(f"proc/{pid}")
        self._pagemap = os.open("pagemap", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        self._kpageflags = open_kpageflags(door)
        self._said_seconds = time.monotonic()
        if parse_stat(door.read("stat", at=self._directory)).start_ticks != start_ticks:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))

    def merged(self) -> Iterator[int]:
        """The addresses of the pages that the process shares with others now."""
        for mapping in parse_maps(self._door.read("maps", at=self._directory)):
            if mapping.permissions[1::2] == "wp":
                yield from self._merged_in(mapping)

    def alone(self, addresses: Iterable[int]) -> int:
        """The number of these pages, in ascending order, that nobody else has mapped."""
        count, start, words = 0, -1, array("Q")
        for address in addresses:
            if start < 0 or address >= start + len(words) * PAGE:
                start, words = address, self._words(address, _WORDS_AT_ONCE)
            place = (address - start) // PAGE
            count += place < len(words) and bool(words[place] & ALONE)
        return count

    def _merged_in(self, mapping: Mapping) -> Iterator[int]:
        for start in range(mapping.start, mapping.end, _WORDS_AT_ONCE * PAGE):
            self._say_that_we_live()
            words = self._words(start, min(_WORDS_AT_ONCE, (mapping.end - start) // PAGE))
            shared = [index for index, word in enumerate(words) if word & (PRESENT | _FILE | ALONE) == PRESENT]
            yield from (start + index * PAGE for index in shared if self._is_merged(words[index] & FRAME))

    def _words(self, start: int, pages: int) -> "array[int]":
        """The entries of pagemap; empty where no page is in memory.

        That saves time on a guest into which much memory could be plugged.
        """
        read = os.pread(self._pagemap, pages * 8, start // PAGE * 8)
        return array("Q", b"" if _NOTHING.startswith(read) else read)

    def _say_that_we_live(self) -> None:
        now_seconds = time.monotonic()
        if now_seconds - self._said_seconds > _SIGN_SECONDS:
            self._said_seconds = now_seconds
            _say()

    def _is_merged(self, frame: int) -> bool:
        """Whether a shared frame is KSM's, not a child's or the zero page.

        Without the right to see frames it counts as such.
        """
        if not frame or self._kpageflags is None:
            return True
        return bool(int.from_bytes(os.pread(self._kpageflags, 8, frame * 8), sys.byteorder) & KPF_KSM)


class Reader:
    """Reads one byte of each of many pages of a process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._call = ctypes.CDLL(None, use_errno=True).process_vm_readv
        self._call.restype = ctypes.c_ssize_t
        vector = (ctypes.c_void_p, ctypes.c_ulong)
        self._call.argtypes = (ctypes.c_int, *vector, *vector, ctypes.c_ulong)
        self._bytes = ctypes.create_string_buffer(_CALL_PAGES)

    def read(self, addresses: list[int]) -> None:
        """Read the pages. Pages that are unmapped by now are passed over.

        Raises OSError when the process is gone, or when we may not read it.
        """
        while addresses:
            some = addresses[:_CALL_PAGES]
            done = self._read(some)
            addresses = addresses[done if done == len(some) else done + 1 :]

    def _read(self, addresses: list[int]) -> int:
        """The number of pages that could be read, from the first on."""
        remote = array("Q", [1]) * (2 * len(addresses))
        remote[::2] = array("Q", addresses)
        local = array("Q", [ctypes.addressof(self._bytes), len(addresses)])
        done = int(self._call(self._pid, local.buffer_info()[0], 1, remote.buffer_info()[0], len(addresses), 0))
        if done < 0 and ctypes.get_errno() != errno.EFAULT:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return max(0, done)


def main(pid: int, start_ticks: int) -> None:
    """Unshare the pages of one process, a portion for each line of standard input, until either ends."""
    door = Door()
    be_a_helper(door)
    guest, reader = MergedPages(door, pid, start_ticks), Reader(pid)
    _say(sum(1 for _ in guest.merged()))
    merged = guest.merged()
    while sys.stdin.buffer.readline():
        portion = list(islice(merged, PORTION_PAGES))
        reader.read(portion)
        _say(len(portion), guest.alone(portion))


def be_a_helper(door: Door) -> None:
    """Be the first to be killed when memory runs out, and leave a Ctrl-C in the terminal to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError):
        door.write("proc/self/oom_score_adj", _OOM_FIRST)


def open_kpageflags(door: Door) -> int | None:
    """Open the file with the use of each frame of the host; None when we may not read it."""
    with suppress(OSError), door.holding("proc") as proc:
        return os.open("kpageflags", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    return None


def _say(*numbers: int) -> None:
    os.write(1, f"{' '.join(map(str, numbers))}\n".encode())


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]))
    except OSError as error:
        sys.exit(error.strerror or str(error))
