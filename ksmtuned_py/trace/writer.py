"""Writes a trace, so that whatever ends us leaves a whole file, and so that it does not fill the disk."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ksmtuned_py.config import Config
from ksmtuned_py.errors import FAILED, KsmtunedError
from ksmtuned_py.report import Report
from ksmtuned_py.trace.lines import Header, NoZstd, Tick, line_of
from ksmtuned_py.units import MIB

ZSTD_SUFFIX = ".zst"
ZSTD_LEVEL = 10
"""0.1 ms for a tick of 50 guests, whose 20 KB become 1.4 KB."""
FLUSH_SECONDS = 10.0
"""So many seconds may be missing after kill -9, and so many compress well."""


@dataclass(eq=False)
class NotRecorded(KsmtunedError):
    """Raised when the trace cannot be written."""

    path: str
    reason: str
    exit_code = FAILED
    template = "{path}: cannot record: {reason}"
    hint_template = "name a new file on a disk with room"


class TraceWriter:
    """Appends ticks to a file. At half of the limit it becomes FILE.1 and a new one begins, with the latest ticks.

    The limit is the bytes of both files together.
    """

    def __init__(self, path: Path, config: Config, limit_bytes: int = 512 * MIB) -> None:
        """Begins a new file; raises NotRecorded, also when there is one, and NoZstd."""
        self.path = path
        self._header = line_of(Header(config=config))
        self._limit_bytes = limit_bytes
        self._packed = _zstd(path) if path.suffix == ZSTD_SUFFIX else bytes
        self._lines: list[bytes] = []
        self._flushed_seconds = float("-inf")
        self._descriptor = self._open()

    def publish(self, report: Report) -> None:
        """Adds one more tick; raises NotRecorded."""
        self._lines.append(line_of(Tick(snapshot=report.snapshot, decision=report.decision)))
        now = report.snapshot.clock.monotonic_seconds
        if now - self._flushed_seconds >= FLUSH_SECONDS:
            self.flush()
            self._flushed_seconds = now

    def failed_tick(self, error: Exception) -> None:
        """Writes nothing, because nothing was seen."""

    def flush(self) -> None:
        """Writes what is still in memory to the file; raises NotRecorded."""
        if not self._lines:
            return
        data = self._packed(b"".join(self._lines))
        if os.fstat(self._descriptor).st_size + len(data) > self._limit_bytes // 2:
            self._turn_over()
        self._append(data)
        self._lines.clear()

    def close(self) -> None:
        """Writes the rest, and closes the file."""
        try:
            self.flush()
        finally:
            os.close(self._descriptor)

    def _open(self) -> int:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise NotRecorded(str(self.path), error.strerror or str(error)) from error
        self._descriptor = descriptor
        self._append(self._packed(self._header))
        return descriptor

    def _turn_over(self) -> None:
        os.close(self._descriptor)
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        self._open()

    def _append(self, data: bytes) -> None:
        """Appends all in one system call, which no signal cuts; on a full disk, nothing. Raises NotRecorded."""
        size = os.fstat(self._descriptor).st_size
        try:
            written, reason = os.write(self._descriptor, data), "the disk is full"
        except OSError as error:
            written, reason = 0, error.strerror or str(error)
        if written < len(data):
            os.ftruncate(self._descriptor, size)
            raise NotRecorded(str(self.path), reason)


def _zstd(path: Path) -> Callable[[bytes], bytes]:
    """Returns the function that packs bytes into one whole frame; raises NoZstd."""
    try:
        import zstandard
    except ImportError as error:
        raise NoZstd(str(path)) from error
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compress
