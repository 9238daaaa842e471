"""Makes a system call that is not there under seccomp filters, for tests: `python -m tests.scan.filtered`.

A line has a filter in hex and the call's arguments; the answer is the errno, or, as a negative number, the signal. Each
filter is on a child of its own, and a fork of this process takes less than one of the tests'.
"""

import ctypes
import os
import sys

from tests.support.seccomp import NO_SUCH_CALL, install


def errno_under(program: bytes, arguments: list[int]) -> int:
    """Returns the errno with which the call ends, if it returns."""
    install(program)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(NO_SUCH_CALL, *map(ctypes.c_uint64, arguments))
    return ctypes.get_errno()


if __name__ == "__main__":
    for line in sys.stdin:
        program, *arguments = line.split()
        pid = os.fork()
        if not pid:
            os._exit(errno_under(bytes.fromhex(program), [*map(int, arguments)]))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
