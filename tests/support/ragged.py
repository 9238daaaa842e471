"""A process with split huge pages: `python -m tests.support.ragged COUNT...` says 'ready'.

It has one range of the size of a huge page for each COUNT, of whose pages so many are the shared zero page. No KSM is
needed for that. Each line that it is sent is a word for one of DEEDS, and it answers when that is done.
"""

import ctypes
import hashlib
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES

PR_SET_NAME, MCL_CURRENT, SYS_USERFAULTFD = 15, 1, {"x86_64": 323}.get(os.uname().machine, 282)
CHILD_SECONDS = 5.0
C = ctypes.CDLL(None)


class Ragged:
    """Memory in huge pages, some of which are split."""

    def __init__(self, counts: list[int]) -> None:
        self.size = int(Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").read_text())
        self.ranges = len(counts)
        self.memory = mmap.mmap(-1, self.size * (len(counts) + 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        anchor = ctypes.c_char.from_buffer(self.memory)
        self.first = -ctypes.addressof(anchor) % self.size
        del anchor
        self.memory.madvise(mmap.MADV_HUGEPAGE)
        for number, count in enumerate(counts):
            self._fill(self.first + number * self.size, count)

    def _fill(self, begin: int, zeros: int) -> None:
        self.memory[begin : begin + self.size] = os.urandom(OWN_PAGE_BYTES) * (self.size // OWN_PAGE_BYTES)
        if zeros:
            self.memory.madvise(mmap.MADV_DONTNEED, begin, zeros * OWN_PAGE_BYTES)
        for page in range(zeros):
            assert self.memory[begin + page * OWN_PAGE_BYTES] == 0  # a read maps the shared zero page

    def hash(self) -> str:
        """The hash of all ranges."""
        with memoryview(self.memory) as memory:  # no copy, for which its cgroup may have no room
            return hashlib.sha256(memory[self.first : self.first + self.size * self.ranges]).hexdigest()

    def become_another(self) -> None:
        """Be another program from now on, which has as much memory at other places."""
        os.execv(sys.executable, [sys.executable, "-m", "tests.support.ragged", "9"])

    def have_a_child(self) -> int:
        """Share all pages with a child, as for a snapshot by fork."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for it
        child = os.fork()
        if not child:
            time.sleep(CHILD_SECONDS)
            os._exit(0)
        return child

    def lose_a_page(self) -> None:
        """Give one page of the second range back, as a balloon does."""
        self.memory.madvise(mmap.MADV_DONTNEED, self.first + 2 * self.size - OWN_PAGE_BYTES, OWN_PAGE_BYTES)

    def write(self) -> None:
        """Write to all zero pages of the second range."""
        for page in range(self.size // OWN_PAGE_BYTES):
            self.memory[self.first + self.size + page * OWN_PAGE_BYTES] = 7


DEEDS: dict[str, Callable[[Ragged], object]] = {
    "hash": Ragged.hash,
    "exec": Ragged.become_another,
    "fork": Ragged.have_a_child,
    "lock": lambda _: C.mlockall(MCL_CURRENT),
    "userfaultfd": lambda _: C.syscall(SYS_USERFAULTFD, 0),
    "migrate": lambda _: C.prctl(PR_SET_NAME, b"mig/src/main"),
    "balloon": Ragged.lose_a_page,
    "write": Ragged.write,
}


def main() -> None:
    """Makes the ranges, and does what it is told until the end of standard input."""
    ragged = Ragged([int(word) for word in sys.argv[1:]])
    print("ready", flush=True)
    for line in sys.stdin:
        print(DEEDS[line.strip()](ragged), flush=True)


if __name__ == "__main__":
    main()
