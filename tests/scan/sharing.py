"""A guest that always writes, and another process with its very memory: `python -m tests.scan.sharing MIB`.

A line 'begin' on standard input begins that process, and is answered by its number: clone with CLONE_VM and without
CLONE_THREAD, as after a vfork that never calls exec. It does nothing but wait.
"""

import ctypes
import os
import signal

from tests.scan import writer

CLONE_VM = 0x100
_libc = ctypes.CDLL(None, use_errno=True)
_stack = ctypes.create_string_buffer(1 << 16)
_pause = ctypes.cast(_libc.pause, ctypes.c_void_p)


def begin() -> int:
    """Begins the process and returns its ID."""
    top = (ctypes.addressof(_stack) + len(_stack) - 64) & ~15
    pid: int = _libc.clone(_pause, ctypes.c_void_p(top), CLONE_VM | signal.SIGCHLD, None)
    assert pid > 0, os.strerror(ctypes.get_errno())
    return pid


if __name__ == "__main__":
    writer.COMMANDS["begin"] = lambda: str(begin())
    writer.main()
