"""A guest that always writes, and another process with its very memory or files: `python -m tests.scan.sharing MIB`.

A line 'begin' on standard input begins that process, and is answered by its number: clone with CLONE_VM and without
CLONE_THREAD, as after a vfork that never calls exec. It does nothing but wait. After 'begin files' it has a copy of the
memory, and the very same open files (CLONE_FILES).
"""

import ctypes
import os
import signal

from tests.scan import writer

CLONE_VM, CLONE_FILES = 0x100, 0x400
_libc = ctypes.CDLL(None, use_errno=True)
_stack = ctypes.create_string_buffer(1 << 16)
_pause = ctypes.cast(_libc.pause, ctypes.c_void_p)


def begin(what: int) -> int:
    """Begins the process and returns its ID."""
    top = (ctypes.addressof(_stack) + len(_stack) - 64) & ~15
    pid: int = _libc.clone(_pause, ctypes.c_void_p(top), what | signal.SIGCHLD, None)
    assert pid > 0, os.strerror(ctypes.get_errno())
    return pid


if __name__ == "__main__":
    writer.COMMANDS["begin"] = lambda: str(begin(CLONE_VM))
    writer.COMMANDS["begin files"] = lambda: str(begin(CLONE_FILES))
    writer.main()
