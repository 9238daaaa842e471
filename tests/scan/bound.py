"""The guest that always writes, with a NUMA policy on its memory alone: `python -m tests.scan.bound MIB MODE NODES`.

NODES has a bit for each node. With 'process' as a fourth argument (x86-64), the policy is the whole process's. A line
'where' asks for the memory's begin.
"""

import ctypes
import os
import sys
import threading

from ksmtuned_py.scanner.remap.processors.architecture import NR
from tests.scan import writer

SET_MEMPOLICY = 238
STACK_BYTES = 1 << 18
"""Stacks are smaller than what may be merged: of several policies, only the most frequent one's memory is."""
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    mode, nodes = int(sys.argv[2]), ctypes.byref(ctypes.c_ulong(int(sys.argv[3])))
    begin = ctypes.c_char.from_buffer(writer.memory)
    threading.stack_size(STACK_BYTES)
    if sys.argv[4:]:
        done = _libc.syscall(SET_MEMPOLICY, mode, nodes, 64)
    else:
        size = ctypes.c_ulong(len(writer.memory))
        done = _libc.syscall(NR["mbind"], ctypes.byref(begin), size, mode, nodes, 64, 0)
    assert not done, os.strerror(ctypes.get_errno())
    writer.COMMANDS["where"] = lambda: str(ctypes.addressof(begin))
    writer.main()


if __name__ == "__main__":
    main()
