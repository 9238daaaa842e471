"""A throw-away process that gives one guest copies of its own of its merged pages, from outside and in portions.

Reading one byte of a page with process_vm_readv pins it for reading, and what is pinned has to be the guest's own: the
kernel copies it first if it is shared (mm/gup.c, gup_must_unshare; Linux 5.19 and newer). Its content stays, nothing
is stopped, ksmd's mutex is not needed, and it can be left off after any portion. The copies count as the guest's.

Whatever locks the guest's memory map holds up this process alone, and it is the first that the kernel kills when
memory runs out. It says how many pages are merged, then does a portion for each line it is sent, and says of how many
pages it was and how many of them are the guest's own since. While it looks for them, which takes a minute for a TiB, an
empty line each second says that it does. It ends with its standard input.
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

from ksmtuned_py.backends.scan.mappings import Mapping, parse_maps
from ksmtuned_py.door import Door
from ksmtuned_py.guests.parse import parse_stat
from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES

PAGE = OWN_PAGE_BYTES
PORTION_PAGES = 4096
"""Some 20 ms, and what one more look at the room may be late by: 16 MiB."""
_LOOKED_AT = 1 << 14
"""Pages of one read of pagemap: 128 KiB."""
_NOTHING = bytes(8 * _LOOKED_AT)
_SIGN_SECONDS = 1.0
_CALL_PAGES = 1024
"""IOV_MAX."""
# Documentation/admin-guide/mm/pagemap.rst: 63 in memory, 61 of a file or shared memory, 56 mapped once only, which a
# page that is merged with another is not; 0 to 54 its frame, 0 to those who may not see it (CAP_SYS_ADMIN).
_PRESENT, _FILE, _ALONE, _FRAME = 1 << 63, 1 << 61, 1 << 56, (1 << 55) - 1
_KPF_KSM = 1 << 21
_OOM_FIRST = "1000"


class Guest:
    """One process, held by its directory in /proc."""

    def __init__(self, door: Door, pid: int, start_ticks: int) -> None:
        """Raises OSError when it is gone, or not ours to look into."""
        self.pid = pid
        self._door = door
        self._directory = door.hold(f"proc/{pid}")
        self._pagemap = os.open("pagemap", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        self._kpageflags = _kpageflags(door)
        self._said_seconds = time.monotonic()
        if parse_stat(door.read("stat", at=self._directory)).start_ticks != start_ticks:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))

    def merged(self) -> Iterator[int]:
        """Addresses of the pages that it shares with others now."""
        for mapping in parse_maps(self._door.read("maps", at=self._directory)):
            if mapping.permissions[1::2] == "wp":
                yield from self._merged_in(mapping)

    def alone(self, addresses: Iterable[int]) -> int:
        """How many of these pages, which ascend, nobody else has mapped."""
        count, start, words = 0, -1, array("Q")
        for address in addresses:
            if start < 0 or address >= start + len(words) * PAGE:
                start, words = address, self._words(address, _LOOKED_AT)
            place = (address - start) // PAGE
            count += place < len(words) and bool(words[place] & _ALONE)
        return count

    def _merged_in(self, mapping: Mapping) -> Iterator[int]:
        for start in range(mapping.start, mapping.end, _LOOKED_AT * PAGE):
            self._say_that_we_live()
            words = self._words(start, min(_LOOKED_AT, (mapping.end - start) // PAGE))
            shared = [index for index, word in enumerate(words) if word & (_PRESENT | _FILE | _ALONE) == _PRESENT]
            yield from (start + index * PAGE for index in shared if self._is_merged(words[index] & _FRAME))

    def _words(self, start: int, pages: int) -> "array[int]":
        """None where nothing is in memory: that is most of a guest that more could be plugged into."""
        read = os.pread(self._pagemap, pages * 8, start // PAGE * 8)
        return array("Q", b"" if _NOTHING.startswith(read) else read)

    def _say_that_we_live(self) -> None:
        now_seconds = time.monotonic()
        if now_seconds - self._said_seconds > _SIGN_SECONDS:
            self._said_seconds = now_seconds
            _say()

    def _is_merged(self, frame: int) -> bool:
        """Not shared with a child of its own, nor the zero page; whoever may not see frames takes it for merged."""
        if not frame or self._kpageflags is None:
            return True
        return bool(int.from_bytes(os.pread(self._kpageflags, 8, frame * 8), sys.byteorder) & _KPF_KSM)


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
        """Those that are unmapped by now are passed over; raises OSError when it is gone, or not ours to read."""
        while addresses:
            some = addresses[:_CALL_PAGES]
            done = self._read(some)
            addresses = addresses[done if done == len(some) else done + 1 :]

    def _read(self, addresses: list[int]) -> int:
        """How many could be read, from the first on."""
        remote = array("Q", [1]) * (2 * len(addresses))
        remote[::2] = array("Q", addresses)
        local = array("Q", [ctypes.addressof(self._bytes), len(addresses)])
        done = int(self._call(self._pid, local.buffer_info()[0], 1, remote.buffer_info()[0], len(addresses), 0))
        if done < 0 and ctypes.get_errno() != errno.EFAULT:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return max(0, done)


def main(pid: int, start_ticks: int) -> None:
    """Unshares the pages of one process, a portion for each line of standard input, until either ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is the parent's business
    door = Door()
    with suppress(OSError):
        door.write("proc/self/oom_score_adj", _OOM_FIRST)
    guest, reader = Guest(door, pid, start_ticks), Reader(pid)
    _say(sum(1 for _ in guest.merged()))
    merged = guest.merged()
    while sys.stdin.buffer.readline():
        portion = list(islice(merged, PORTION_PAGES))
        reader.read(portion)
        _say(len(portion), guest.alone(portion))


def _kpageflags(door: Door) -> int | None:
    """What each frame of the host is used for; None to those who may not see that."""
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
