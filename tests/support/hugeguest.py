"""A process like a guest whose memory is in huge pages: `python -m tests.support.hugeguest MIB [EACH]` says 'ready'.

A tenth of its pages is the same in each such process, in runs of four as on real guests; a twentieth is zero. With EACH
so many of these runs in a row have the same content. For each line that it is sent it answers with its contents' hash.
"""

import ctypes
import mmap
import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES as PAGE_BYTES
from ksmtuned_py.units import MIB
from tests.support.smaps import huge_bytes

COMM = b"qemu-system-x86"
RUN_BYTES = 4 * PAGE_BYTES
EQUAL_PERCENT, ZERO_PERCENT = 10, 5
PR_SET_NAME = 15  # linux/prctl.h


class HugeGuest(NamedTuple):  # no dataclass: to import what makes one is a third of such a process's start
    """One of them that is ready."""

    process: "subprocess.Popen[str]"

    @property
    def pid(self) -> int:
        """Its PID."""
        return self.process.pid

    def contents(self) -> str:
        """Returns the hash of its memory."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print("hash", file=self.process.stdin, flush=True)
        return self.process.stdout.readline()

    def huge_bytes(self) -> int:
        """Returns how much of its memory is in huge pages, by the kernel."""
        return huge_bytes(self.pid)


@contextmanager
def guests_in_huge_pages(count: int, mib: int, each: int = 1) -> Iterator[list[HugeGuest]]:
    """Begins some, and waits until they are ready."""
    words = [sys.executable, "-m", "tests.support.hugeguest", str(mib), str(each)]
    with ExitStack() as stack:
        begun = [
            stack.enter_context(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(count)
        ]
        for process in begun:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield [HugeGuest(process) for process in begun]


def mergeable_pages(mib: int) -> int:
    """Returns what the counters show of two of them: splits of huge pages free the zero pages (Linux 6.12)."""
    return mib * MIB // PAGE_BYTES * EQUAL_PERCENT // 100


def own_pages(block: bytearray, run: int) -> bytearray:
    """Returns pages that nobody else has: those of the block, stamped with their place, which costs next to nothing."""
    for begin in range(0, RUN_BYTES, PAGE_BYTES):
        struct.pack_into("=Q", block, begin, run * RUN_BYTES + begin)
    return block


def main() -> None:
    """Fills the memory and waits for the end of standard input."""
    size_bytes = int(sys.argv[1]) * MIB
    each = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    ctypes.CDLL(None).prctl(PR_SET_NAME, COMM)
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    runs = list(range(size_bytes // RUN_BYTES))
    random.Random(0).shuffle(runs)
    own = bytearray(random.Random(os.getpid()).randbytes(RUN_BYTES))
    equal, zero = (len(runs) * percent // 100 for percent in (EQUAL_PERCENT, EQUAL_PERCENT + ZERO_PERCENT))
    content: bytes | bytearray
    for place, run in enumerate(runs):
        if place < equal:
            content = random.Random(run // each).randbytes(RUN_BYTES)
        elif place < zero:
            content = bytes(RUN_BYTES)
        else:
            content = own_pages(own, run)
        memory[run * RUN_BYTES : (run + 1) * RUN_BYTES] = content
    memory.madvise(mmap.MADV_MERGEABLE)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(hash(memoryview(memory).toreadonly()), flush=True)


if __name__ == "__main__":
    main()
