"""A process like a guest whose memory is in huge pages: `python -m tests.support.hugeguest MIB [EACH]` says 'ready'.

A tenth of its pages is the same in each such process, in runs of four as on real guests; a twentieth is zero. With EACH
so many of these runs in a row have the same content. For each line that it is sent it answers with its contents' hash.
"""

import ctypes
import hashlib
import mmap
import os
import random
import sys

from ksmtuned_py.cli.workload import PAGE_BYTES
from ksmtuned_py.units import MIB

COMM = b"qemu-system-x86"
RUN_BYTES = 4 * PAGE_BYTES
EQUAL_PERCENT, ZERO_PERCENT = 10, 5
PR_SET_NAME = 15  # linux/prctl.h


def mergeable_pages(mib: int) -> int:
    """Returns what the counters show of two of them: splits of huge pages free the zero pages (Linux 6.12)."""
    return mib * MIB // PAGE_BYTES * EQUAL_PERCENT // 100


def main() -> None:
    """Fills the memory and waits for the end of standard input."""
    size_bytes = int(sys.argv[1]) * MIB
    each = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    ctypes.CDLL(None).prctl(PR_SET_NAME, COMM)
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    runs = list(range(size_bytes // RUN_BYTES))
    random.Random(0).shuffle(runs)
    equal, zero = (len(runs) * percent // 100 for percent in (EQUAL_PERCENT, EQUAL_PERCENT + ZERO_PERCENT))
    for place, run in enumerate(runs):
        content = random.Random(run // each).randbytes(RUN_BYTES) if place < equal else os.urandom(RUN_BYTES)
        memory[run * RUN_BYTES : (run + 1) * RUN_BYTES] = bytes(RUN_BYTES) if equal <= place < zero else content
    memory.madvise(mmap.MADV_MERGEABLE)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(hashlib.sha256(memory).hexdigest(), flush=True)


if __name__ == "__main__":
    main()
