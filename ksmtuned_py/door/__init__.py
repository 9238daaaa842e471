"""The one door to the kernel. Everything read from or written to /sys and /proc goes through a Door.

It takes a root path, so the whole daemon runs on a made-up tree, and on a captured one. Every write is recorded.
"""

import errno
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ksmtuned_py.door.text import parse_int
from ksmtuned_py.errors import KsmtunedError, NotPermitted, ReadOnly, RootNotPermitted, Unreadable
from ksmtuned_py.units import MIB

MOST_BYTES = 64 * MIB
"""The most that is read of one file. The kernel's own files are far shorter.

Files that a process can make longer have limits of their own.
"""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One write that went through the door; error is None when the kernel took it, else its errno name and text."""

    path: str
    text: str
    error: str | None


class Door:
    """Reads and writes small kernel files below a root directory."""

    LOG_LENGTH = 256

    def __init__(self, root: str = "/") -> None:
        self.root = str(Path(root))
        self.log: deque[Recorded] = deque(maxlen=self.LOG_LENGTH)

    def path(self, relative: str) -> str:
        """The file's full path, for messages and for libraries that want one."""
        return os.path.join(self.root, relative)  # noqa: PTH118 - called for every file that is read

    def exists(self, relative: str) -> bool:
        """Whether the file or directory is there."""
        return os.path.exists(self.path(relative))  # noqa: PTH110 - called for every process on the host

    def names(self, relative: str) -> list[str]:
        """The names in a directory; none when there is no such directory, or we may not read it."""
        try:
            return os.listdir(self.path(relative))  # noqa: PTH208 - called for /proc on every tick
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError, PermissionError):
            return []

    def directories(self, relative: str) -> list[str]:
        """The names of the directories in a directory; none when there is no such directory, or we may not read it."""
        with suppress(OSError), os.scandir(self.path(relative)) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return []

    def links(self, relative: str, most: int, *, at: int | None = None) -> list[str]:
        """The targets of the first links in a directory, `most` of them at most; raises OSError."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        directory = os.open(relative if at is not None else self.path(relative), flags, dir_fd=at)
        try:
            found = []
            with os.scandir(directory) as entries:
                for entry in islice(entries, most):
                    with suppress(OSError):  # it is no link, or was closed meanwhile
                        found.append(os.readlink(entry.name, dir_fd=directory))
            return found
        finally:
            os.close(directory)

    def read(self, relative: str, *, at: int | None = None, most_bytes: int = MOST_BYTES) -> str:
        """The file's text, as it is; raises OSError, with EFBIG when there is more than `most_bytes`.

        With `at`, a descriptor from `hold`, the path is below that directory.
        """
        descriptor = os.open(relative if at is not None else self.path(relative), os.O_RDONLY | os.O_CLOEXEC, dir_fd=at)
        try:
            return _read_all(descriptor, most_bytes).decode("utf-8", "replace")
        finally:
            os.close(descriptor)

    def read_if_there(self, relative: str, *, at: int | None = None) -> str | None:
        """The file's text; None when the kernel has no such file or has it switched off."""
        try:
            return self.read(relative, at=at)
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
            return None
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:  # PSI that was disabled at boot
                return None
            raise unreadable(self.path(relative), error) from error

    def read_int(self, relative: str) -> int | None:
        """The file's one decimal number; None when there is no such file. Raises Garbage when it is anything else."""
        text = self.read_if_there(relative)
        return None if text is None else parse_int(self.path(relative), text)

    def write(self, relative: str, text: str) -> None:
        """Write the whole text in one system call; raises OSError as the kernel gave it."""
        path = self.path(relative)
        error: str | None = None
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_TRUNC)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
        except OSError as caught:
            error = f"{caught.strerror} (errno {caught.errno})"
            raise
        finally:
            self.log.append(Recorded(path, text, error))

    def check_writable(self, relative: str) -> None:
        """Raise ReadOnly, NotPermitted or Unreadable when the file cannot be opened for a write. Nothing is written."""
        path = self.path(relative)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            raise _unwritable(path, error) from error

    def open_trigger(self, relative: str, text: str) -> int | None:
        """Write `text` to a PSI file, and return a descriptor that polls POLLPRI; None where there are no triggers."""
        try:
            descriptor = os.open(self.path(relative), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            os.write(descriptor, text.encode())
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def hold(self, relative: str) -> int:
        """Open a descriptor on a directory. On /proc/PID it means that one process, even when its PID is reused."""
        return os.open(self.path(relative), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @contextmanager
    def holding(self, relative: str) -> Iterator[int]:
        """Open a descriptor on a directory for the length of a with block."""
        descriptor = self.hold(relative)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def unreadable(path: str, error: OSError) -> NotPermitted | Unreadable:
    """The expected error for a failed read: NotPermitted or Unreadable."""
    if isinstance(error, PermissionError):
        return not_permitted(path, "read it")
    return Unreadable(path, error.strerror or str(error))


def not_permitted(path: str, action: str) -> NotPermitted:
    """The expected error for what we may not do. For root it has another way out than to become root."""
    return (RootNotPermitted if os.geteuid() == 0 else NotPermitted)(path, action)


def _unwritable(path: str, error: OSError) -> KsmtunedError:
    if error.errno == errno.EROFS:
        return ReadOnly(path)
    return not_permitted(path, "write it") if isinstance(error, PermissionError) else unreadable(path, error)


def _read_all(descriptor: int, most_bytes: int) -> bytes:
    chunks, size = [], 0
    while chunk := os.read(descriptor, 65536):
        chunks.append(chunk)
        size += len(chunk)
        if size > most_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return b"".join(chunks)
