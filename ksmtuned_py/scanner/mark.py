"""Notes which guest the worker is at, in memory that its parent sees: a worker that hangs can tell nothing else."""

import mmap
import os
import struct

from ksmtuned_py.model import GuestKey

NOBODY = GuestKey(0, 0)
_KEY = struct.Struct("=QQ")


class Mark:
    """The shared note; each side has its own descriptor of it."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _KEY.size)

    def set(self, key: GuestKey) -> None:
        """Notes that the worker is at this guest from now on, or at none."""
        _KEY.pack_into(self._memory, 0, *key)

    def get(self) -> GuestKey:
        """Returns the guest that the worker is at, or was at when it ended."""
        return GuestKey(*_KEY.unpack_from(self._memory))

    def close(self) -> None:
        """Closes this side's descriptor."""
        self._memory.close()


def new_mark() -> int:
    """Returns the descriptor of a new mark."""
    descriptor = os.memfd_create("ksmtuned-py-mark", os.MFD_CLOEXEC)
    os.truncate(descriptor, _KEY.size)
    return descriptor
