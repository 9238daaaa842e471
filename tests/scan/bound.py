"""The guest that never rests, with a NUMA policy: `python -m tests.scan.bound MIB MODE`, on its memory alone.

With 'process' as a third argument, it is the policy of the whole process. A line 'where' asks for the memory's begin.
"""

import ctypes
import os
import sys

from ksmtuned_py.backends.scan.remap.amd64 import NR
from tests.scan import writer

SET_MEMPOLICY = 238
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    mode, node_0 = int(sys.argv[2]), ctypes.byref(ctypes.c_ulong(1))
    begin = ctypes.c_char.from_buffer(writer.memory)
    if sys.argv[3:]:
        done = _libc.syscall(SET_MEMPOLICY, mode, node_0, 64)
    else:
        size = ctypes.c_ulong(len(writer.memory))
        done = _libc.syscall(NR["mbind"], ctypes.byref(begin), size, mode, node_0, 64, 0)
    assert not done, os.strerror(ctypes.get_errno())
    writer.COMMANDS["where"] = lambda: str(ctypes.addressof(begin))
    writer.main()


if __name__ == "__main__":
    main()
