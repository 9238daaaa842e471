"""Which guest the worker is at, in memory that its parent sees, too: all that a worker that hangs can still tell."""

import mmap
import os
import struct

from ksmtuned_py.backends.scan.target import GuestKey

NOBODY: GuestKey = (0, 0)
_KEY = struct.Struct("=QQ")


class Mark:
    """The two sides have one descriptor of it each."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _KEY.size)

    def set(self, key: GuestKey) -> None:
        """The worker is at this guest from now on, or at none."""
        _KEY.pack_into(self._memory, 0, *key)

    def get(self) -> GuestKey:
        """Where it is, or was when it ended."""
        pid, start_ticks = _KEY.unpack_from(self._memory)
        return pid, start_ticks

    def close(self) -> None:
        """Lets go."""
        self._memory.close()


def new_mark() -> int:
    """The descriptor of a new one."""
    descriptor = os.memfd_create("ksmtuned-py-mark", os.MFD_CLOEXEC)
    os.truncate(descriptor, _KEY.size)
    return descriptor
