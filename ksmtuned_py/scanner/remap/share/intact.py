"""Tells whether memory is still what it was when its flags were read, while all threads of the guest stand still.

The flags come from smaps, which walks through all page tables, so they are read once for many stops.
"""

import errno
import fcntl
import os
import struct

import numpy as np

from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.remap.share.runs import PageRun
from ksmtuned_py.scanner.remap.stop import system

_COLD = 20
"""MADV_COLD: advice that locked memory refuses, and that changes nothing that a program sees."""
_QUERY = struct.Struct("=13Q")  # struct procmap_query (include/uapi/linux/fs.h)
_PROCMAP_QUERY = 0xC0686611  # _IOWR('f', 17, 104 bytes), Linux 6.11+
_ADDRESS, _END, _FLAGS = 2, 4, 5
_READ_WRITE_PRIVATE = 3
_WHOLE = 1000
"""How many runs one call takes."""


def change(process: Process, runs: list[PageRun]) -> str | None:
    """Returns why the memory of these runs must not be touched any more; None when it is as it was. Raises OSError."""
    if any(_is_locked_or_gone(process, runs[begin : begin + _WHOLE]) for begin in range(0, len(runs), _WHOLE)):
        return "it has locked its memory, or taken it away, while it was merged"
    if not all(_may_be_written(process, runs)):
        return "it has protected its memory, or mapped something else there, while it was merged"
    return None


def _may_be_written(process: Process, runs: list[PageRun]) -> list[bool]:
    """Returns for each run whether it may be written; before Linux 6.11 only `has_changed` can see it."""
    maps = os.open("maps", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process.directory)
    try:
        return [_is_private_and_plain(maps, run) for run in runs]
    except OSError as error:
        if error.errno == errno.ENOTTY:
            return []
        raise
    finally:
        os.close(maps)


def _is_private_and_plain(maps: int, run: PageRun) -> bool:
    words = [0] * 13
    words[0], words[_ADDRESS] = _QUERY.size, run.address
    argument = bytearray(_QUERY.pack(*words))
    try:
        fcntl.ioctl(maps, _PROCMAP_QUERY, argument)
    except FileNotFoundError:
        return False
    found = _QUERY.unpack(argument)
    return bool(found[_FLAGS] == _READ_WRITE_PRIVATE and found[_END] >= run.address + run.size)


def _is_locked_or_gone(process: Process, runs: list[PageRun]) -> bool:
    vectors = np.array([(run.address, run.size) for run in runs], np.uint64)
    try:
        done = system.call("process_madvise", process.pidfd, vectors.ctypes.data, len(vectors), _COLD, 0)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOMEM):
            return True
        raise
    return done != sum(run.size for run in runs)
