"""A scanned process, identified by open descriptors, so that its end, an exec or a reused PID cannot mislead us."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Self

from ksmtuned_py.door import MOST_BYTES, Door
from ksmtuned_py.guests.mappings import Mapping, candidates, parse_maps
from ksmtuned_py.scanner.pagemap import Kind, Runs, runs, tells_huge
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.sensors.stat import parse_stat
from ksmtuned_py.sensors.status import parse_status
from ksmtuned_py.units import MIB

_MAPS_BYTES = 10 * MIB
"""Some 200,000 mappings without a name, or 80,000 of merged pages: reading them takes half a second."""


@dataclass(eq=False)
class Gone(Exception):
    """Raised when the process has ended or called exec, or its PID belongs to another process."""

    name: str


class Process:
    """Open descriptors on one process; `mem` and `pagemap` stay with the memory it had when it was opened.

    Opening a process raises Gone, or Refused when it is there and we may not look.
    """

    def __init__(self, target: Target, door: Door) -> None:
        self.target = target
        self._door = door
        self.pidfd = self.directory = self.mem = self.pagemap = -1
        self._noted_pages = ("", "")
        try:
            self._open()
        except (FileNotFoundError, ProcessLookupError):
            self.close()
            raise Gone(target.name) from None
        except OSError as error:
            self.close()
            raise Refused(f"its memory cannot be looked at: {error.strerror}") from None
        except Gone:
            self.close()
            raise

    def mappings(self) -> list[Mapping]:
        """Returns all mappings of the process; raises Gone, or Refused when they are so many that it takes long."""
        try:
            return parse_maps(self.read_text("maps", _MAPS_BYTES))
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise Refused("it has too many mappings to look at all of them") from None
            raise

    def ranges(self) -> list[tuple[int, int]]:
        """Returns its private memory, as address ranges; raises Gone."""
        return candidates(self.mappings())

    def read_text(self, name: str, most_bytes: int = MOST_BYTES) -> str:
        """Returns the text of a file below /proc/PID; raises Gone, and OSError with EFBIG when there is more of it."""
        try:
            return self._door.read(name, at=self.directory, most_bytes=most_bytes)
        except (FileNotFoundError, ProcessLookupError):
            raise Gone(self.target.name) from None

    def pieces(self, name: str, most_bytes: int) -> Iterator[bytes]:
        """Yields a file below /proc/PID, of which the kernel makes up no more than so many bytes at once; raises Gone.

        What is mapped may change between two of them.
        """
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory)
        except (FileNotFoundError, ProcessLookupError):
            raise Gone(self.target.name) from None
        try:
            while piece := os.read(descriptor, most_bytes):
                yield piece
        except ProcessLookupError:
            raise Gone(self.target.name) from None
        finally:
            os.close(descriptor)

    def status(self, name: str = "status") -> dict[str, str]:
        """Returns the lines of a status file below /proc/PID, by their names; raises Gone."""
        return parse_status(self.read_text(name))

    def names(self, name: str, most: int) -> list[str]:
        """Returns the names in a directory below /proc/PID, no more than so many of them; raises Gone."""
        with self._open_directory(name) as descriptor, os.scandir(descriptor) as entries:
            return [entry.name for entry in islice(entries, most)]

    def note_mappings(self) -> list[Mapping]:
        """Returns all mappings, and keeps their size for later calls of `has_changed`; raises Gone."""
        self._noted_pages = self._space_pages()
        return self.mappings()

    def has_changed(self) -> bool:
        """Whether it has mapped or unmapped anything since `note_mappings`, judged by its size; raises Gone."""
        return self._space_pages() != self._noted_pages

    def runs(self, start: int, end: int, kind: Kind) -> Runs:
        """Returns the runs of its pages of that kind; raises Gone."""
        try:
            return runs(self.pagemap, start, end, kind)
        except ProcessLookupError:
            raise Gone(self.target.name) from None

    def tells_huge(self) -> bool:
        """Whether the kernel tells which of its pages are huge; raises Gone."""
        try:
            return tells_huge(self.pagemap)
        except ProcessLookupError:
            raise Gone(self.target.name) from None

    def read(self, buffers: Sequence[memoryview], address: int) -> int:
        """Copies its memory into the buffers and returns the bytes read; 0 where nothing is mapped any more."""
        try:
            return os.preadv(self.mem, buffers, address)
        except OSError:  # EIO: unmapped since we looked; the next pass will see
            return 0

    def read_pages(self, found: Runs, buffer: memoryview) -> bool:
        """Fills the buffer with the runs, one after the other; returns False when any of it could not be read."""
        begin = 0
        for start, end in found.tolist():
            size = end - start
            if self.read([buffer[begin : begin + size]], start) != size:
                return False
            begin += size
        return True

    def close(self) -> None:
        """Closes the descriptors."""
        for descriptor in (self.pagemap, self.mem, self.directory, self.pidfd):
            if descriptor >= 0:
                os.close(descriptor)
        self.pidfd = self.directory = self.mem = self.pagemap = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _space_pages(self) -> tuple[str, str]:
        """Returns the pages of all its mappings, and of those that it may write to."""
        words = self.read_text("statm").split()
        return words[0], words[5]

    @contextmanager
    def _open_directory(self, name: str) -> Iterator[int]:
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.directory)
        except (FileNotFoundError, ProcessLookupError):
            raise Gone(self.target.name) from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self) -> None:
        self.pidfd = os.pidfd_open(self.target.pid)
        self.directory = self._door.hold(f"proc/{self.target.pid}")
        if self.target.start_ticks not in (0, parse_stat(self.read_text("stat")).start_ticks):
            raise Gone(self.target.name)
        self.mem = os.open("mem", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory)
        self.pagemap = os.open("pagemap", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory)
