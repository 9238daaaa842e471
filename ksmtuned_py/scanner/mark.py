"""Notes which guest the worker is at, in memory that its parent sees: a worker that hangs can tell nothing else."""

import mmap
import os
import struct
import time

from ksmtuned_py.model import GuestKey

NOBODY = GuestKey(0, 0)
KEPT_SECONDS = 2
"""A worker that is kept for so long while a guest stands still is killed by the kernel; no stop takes half as long."""
_KEY, _SINCE = struct.Struct("=QQ"), struct.Struct("=d")
_BYTES = _KEY.size + _SINCE.size


class Mark:
    """The shared note; each side has its own descriptor of it."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _BYTES)

    def set(self, key: GuestKey) -> None:
        """Notes that the worker is at this guest from now on, or at none."""
        _KEY.pack_into(self._memory, 0, *key)

    def get(self) -> GuestKey:
        """Returns the guest that the worker is at, or was at when it ended."""
        return GuestKey(*_KEY.unpack_from(self._memory))

    def stand(self, since_seconds: float) -> None:
        """Notes the monotonic time since which that guest stands still; 0 when it does not."""
        _SINCE.pack_into(self._memory, _KEY.size, since_seconds)

    def was_kept(self) -> bool:
        """Whether the guest stands still for longer than the worker may be kept meanwhile."""
        since_seconds: float = _SINCE.unpack_from(self._memory, _KEY.size)[0]
        return 0 < since_seconds <= time.monotonic() - KEPT_SECONDS

    def close(self) -> None:
        """Closes this side's descriptor."""
        self._memory.close()


def new_mark() -> int:
    """Returns the descriptor of a new mark."""
    descriptor = os.memfd_create("ksmtuned-py-mark", os.MFD_CLOEXEC)
    os.truncate(descriptor, _BYTES)
    return descriptor
