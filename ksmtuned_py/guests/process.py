"""One process in /proc: held by a descriptor, so that a reused PID cannot pass for it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from ksmtuned_py.door import Door
from ksmtuned_py.guests.parse import Identity, parse_stat, parse_statm


@dataclass(slots=True)
class Process:
    """Reads below /proc/PID, through the descriptor where there is one."""

    door: Door
    pid: int
    descriptor: int | None = None

    def hold(self) -> None:
        """From now on mean this very process; raises OSError when it is gone or descriptors ran out."""
        self.descriptor = self.door.hold(f"proc/{self.pid}")

    def close(self) -> None:
        """Let go of the descriptor."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def path(self, name: str) -> str:
        """The file's full path, for messages."""
        return self.door.path(f"proc/{self.pid}/{name}")

    def read(self, name: str) -> str | None:
        """The file's text; None when the process is gone, or has no such file, or it is not ours to read."""
        with suppress(OSError):
            if self.descriptor is None:
                return self.door.read(f"proc/{self.pid}/{name}")
            return self.door.read(name, at=self.descriptor)
        return None

    def identity(self) -> Identity | None:
        """Who it is; None when it is gone; raises Garbage."""
        text = self.read("stat")
        return parse_stat(text, self.path("stat")) if text else None

    def sizes_pages(self) -> tuple[int, int] | None:
        """Mapped, and resident; None when it has no memory: kernel threads, zombies, the gone; raises Garbage."""
        text = self.read("statm")
        sizes = parse_statm(text, self.path("statm")) if text else (0, 0)
        return sizes if sizes[0] else None

    def command_line(self) -> tuple[str, list[str]]:
        """Its name, completed where the kernel cut it, and its arguments; empty when it is gone."""
        with suppress(psutil.Error), _psutil_below(self.door):
            process = psutil.Process(self.pid)
            with process.oneshot():
                return _printable(process.name()), [_printable(word) for word in process.cmdline()]
        return "", []


def _printable(text: str) -> str:
    """What any process may write there, as text that every surface can encode: psutil lets odd bytes through."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@contextmanager
def _psutil_below(door: Door) -> Iterator[None]:
    """psutil's one switch for made-up and captured trees; put back, for whoever else uses psutil."""
    before = psutil.PROCFS_PATH
    psutil.PROCFS_PATH = door.path("proc")
    try:
        yield
    finally:
        psutil.PROCFS_PATH = before
