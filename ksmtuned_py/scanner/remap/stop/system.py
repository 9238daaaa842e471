"""Makes system calls that Python has no function for, by ctypes; each raises OSError as Python's own do."""

import ctypes
import os
import struct
from dataclasses import dataclass

_NUMBERS = {
    "x86_64": {"kcmp": 312, "statx": 332, "timer_create": 222, "timer_settime": 223},
    "aarch64": {"kcmp": 272, "statx": 291, "timer_create": 107, "timer_settime": 110},
}.get(os.uname().machine, {})
_ALIKE = {"pidfd_getfd": 438, "process_madvise": 440}
"""Numbers that are the same on every machine."""
ANYWHERE = -100
"""Stands in place of a directory, for a path that begins at the root."""
_MEMORY, _FILES = 1, 2  # KCMP_VM, KCMP_FILES
_AT_STATX_DONT_SYNC, _STATX_TYPE_OWNER_INODE, _STATX_BYTES = 0x4000, 0x109, 256
_OWNER_AT, _MODE_AT, _INODE_AT, _DEVICES_AT = 20, 28, 32, 128
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@dataclass(frozen=True, slots=True)
class File:
    """What a file is."""

    mode: int
    """Only the bits of the file's type."""
    device: tuple[int, int]
    """Major and minor number of a device node."""
    key: tuple[int, int]
    """The device that the file lies on, and its inode."""
    owner: int = 0
    """The user that it belongs to."""


def call(name_or_number: str | int, *arguments: int) -> int:
    """Makes one system call, by its name or number; raises OSError."""
    number = name_or_number if isinstance(name_or_number, int) else (_NUMBERS | _ALIKE).get(name_or_number, -1)
    done: int = _libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(value % 2**64) for value in arguments))
    if done == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


def file(path: str, directory: int) -> File:
    """Returns the file that a path below a directory leads to, without waiting for a file's server."""
    found, name = ctypes.create_string_buffer(_STATX_BYTES), ctypes.create_string_buffer(path.encode())
    call(
        "statx",
        directory,
        ctypes.addressof(name),
        _AT_STATX_DONT_SYNC,
        _STATX_TYPE_OWNER_INODE,
        ctypes.addressof(found),
    )
    (owner,) = struct.unpack_from("=I", found, _OWNER_AT)
    (mode,) = struct.unpack_from("=H", found, _MODE_AT)
    (inode,) = struct.unpack_from("=Q", found, _INODE_AT)
    major, minor, *on = struct.unpack_from("=4I", found, _DEVICES_AT)
    return File(mode & 0o170000, (major, minor), (os.makedev(*on), inode), owner)


def in_common(one: int, other: int) -> str | None:
    """Returns what two processes have in common, so that one changes what the other has; None when it is nothing."""
    if call("kcmp", one, other, _MEMORY, 0, 0) == 0:
        return "memory"
    return "open files" if has_same_files(one, other) else None


def has_same_files(one: int, other: int) -> bool:
    """Whether two processes or threads have the very same table of open files."""
    return call("kcmp", one, other, _FILES, 0, 0) == 0
