"""Keeps merged pages in one memfd, as large as it will ever be and sealed so; only what is used takes memory."""

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Generator, Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ksmtuned_py.door import Door
from ksmtuned_py.scanner.count import first_of_each
from ksmtuned_py.scanner.pages import Prints, prints
from ksmtuned_py.scanner.remap.foothold.area import SEALS
from ksmtuned_py.scanner.remap.processors.architecture import NR
from ksmtuned_py.scanner.remap.refuse.numa import MOST_NODES, NumaPolicy
from ksmtuned_py.scanner.remap.share.freepages import FreePages, stretches
from ksmtuned_py.scanner.remap.share.references import References
from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES

PAGE = OWN_PAGE_BYTES
STORE_BYTES = 1 << 40
_PUNCH_HOLE, _KEEP_SIZE = 2, 1
_READ_PAGES = 1024
_PUNCHED_AT_ONCE = 1 << 16
_PUNCHED_PER_PAGE, _MARKED_PER_PAGE = 8, 64
"""How many pages are freed, or looked up, in the time in which one is read."""
Offsets = NDArray[np.uint32]
"""Page numbers in the store."""
_OURS = "trusted.ksmtuned-py"
"""An attribute that takes CAP_SYS_ADMIN to set: no guest has that, nor has root in a container."""
_MARK = b"1"
_MODE = 0o100600
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p


class Store:
    """Contents by print; new ones are put side by side, so that runs of a guest's pages are runs here, too."""

    def __init__(self, name: str, since_ticks: int, descriptor: int | None = None, end: int = 0) -> None:
        """Makes a new store; with a descriptor, opens the one that it is, whose contents `take_over` then reads.

        `end` tells how far, in pages, it is mapped.
        """
        self.since_ticks = since_ticks
        """When the memfd was made, in clock ticks since boot: no process that began before can have inherited it."""
        self.descriptor = _create(name) if descriptor is None else descriptor
        self._lock = lock(self.descriptor)
        self.readable = os.open(Door().path(f"proc/self/fd/{self.descriptor}"), os.O_RDONLY | os.O_CLOEXEC)
        """The descriptor for guests: through it nobody can write to what all have mapped, or get one that can."""
        self._prints: Prints = np.empty(0, np.uint64)
        self._offsets: Offsets = np.empty(0, np.uint32)
        self._adding: list[tuple[Prints, Offsets]] = []
        self.end = end
        """The first page from which on nothing is used."""
        self.times_freed = 0
        """How often pages of it were freed: what was planned with it before may be something else now."""
        self._idle: NDArray[np.bool_] = np.zeros(0, np.bool_)
        """For each page, whether nobody read it in the last look."""
        self._gone: NDArray[np.bool_] = np.zeros(0, np.bool_)
        """For each page, whether it is forgotten and has still to be punched."""
        self._free_pages = FreePages()

    def bind(self, policy: NumaPolicy) -> None:
        """Sets the NUMA policy of its pages, and so of whatever has them mapped; raises OSError.

        The policy stays with the file when it is not mapped here any more.
        """
        there = _libc.mmap(None, ctypes.c_size_t(STORE_BYTES), mmap.PROT_READ, mmap.MAP_SHARED, self.descriptor, 0)
        size, nodes = ctypes.c_ulong(STORE_BYTES), policy.nodes.to_bytes(MOST_NODES // 8, "little")
        done = _libc.syscall(NR["mbind"], ctypes.c_void_p(there), size, policy.mode, nodes, MOST_NODES + 1, 0)
        number = ctypes.get_errno()
        _libc.munmap(ctypes.c_void_p(there), size)
        if done:
            raise OSError(number, os.strerror(number))

    @property
    def key(self) -> tuple[int, int]:
        """Device and inode."""
        found = os.fstat(self.descriptor)
        return found.st_dev, found.st_ino

    def close(self) -> None:
        """Closes the store's descriptors."""
        os.close(self._lock)
        os.close(self.readable)
        os.close(self.descriptor)

    @property
    def known(self) -> Prints:
        """The prints of all contents, sorted."""
        return self._prints

    def offsets(self, wanted: Prints) -> Offsets:
        """Returns where these known prints are, in pages."""
        return self._offsets[np.searchsorted(self._prints, wanted)]

    def add(self, content: memoryview, found: Prints) -> None:
        """Adds pages with new prints, unless the store is full; `index` makes them known."""
        begin = self._free_pages.take(len(found))
        if begin is None:
            begin = self.end
            if (begin + len(found)) * PAGE > STORE_BYTES:
                return
            self.end += len(found)
        os.pwrite(self.descriptor, content, begin * PAGE)
        self._adding.append((found, np.arange(begin, begin + len(found), dtype=np.uint32)))

    def index(self) -> None:
        """Makes known what was added since the last time: for all of a plan at once, since it moves all that is known.

        It must be done before anything of that is mapped, or the pages would not be known to be used.
        """
        if not self._adding:
            return
        found, places = (np.concatenate(parts) for parts in zip(*self._adding, strict=True))
        self._adding.clear()
        order = np.argsort(found)
        found, places = found[order], places[order]
        at = np.searchsorted(self._prints, found)
        self._prints, self._offsets = np.insert(self._prints, at, found), np.insert(self._offsets, at, places)

    def read(self, offset: int, pages: int) -> bytes:
        """Returns the contents of some pages; raises OSError where the memory is broken."""
        found = os.pread(self.descriptor, pages * PAGE, offset * PAGE)
        if len(found) < pages * PAGE:
            raise OSError(errno.EIO, "what is shared cannot be read")
        return found

    def free_unused(self, references: References) -> Generator[int, None, None]:
        """Frees pages that nobody reads in two looks in a row: the second sees who was forked meanwhile.

        The references may be older than the last pages that were added, which are then kept. Yields the work of each
        step, in pages that could be read meanwhile.
        """
        self.index()
        pages = len(references.readers)
        unused = self._known_pages(pages)[:pages] & (references.readers == 0)
        known = min(pages, len(self._idle))
        gone = np.zeros(max(pages, self.end), np.bool_)
        gone[:known] = unused[:known] & self._idle[:known]
        self._idle = unused & ~gone[:pages]
        self._free(gone)
        yield 1 + len(gone) // _MARKED_PER_PAGE
        yield from self._punch_gone()
        self.index()  # pages that were added in between are not free
        taken = self._known_pages(len(gone))
        taken[pages:] = True
        taken[:pages] |= references.covered
        self.end = self._free_pages.take_in(taken)
        yield 1 + len(gone) // _MARKED_PER_PAGE
        yield from self._punch_beyond()

    def _known_pages(self, pages: int) -> NDArray[np.bool_]:
        """Returns for each page, of so many at least, whether its content is known."""
        found = np.zeros(max(pages, self.end), np.bool_)
        found[self._offsets] = True
        return found

    def _free(self, gone: NDArray[np.bool_]) -> None:
        """Forgets pages, which are given out again only once they are punched."""
        if not gone.any():
            return
        self.times_freed += 1
        gone[: len(self._gone)] |= self._gone
        self._gone = gone
        kept = ~gone[self._offsets]
        self._prints, self._offsets = self._prints[kept], self._offsets[kept]

    def _punch_gone(self) -> Iterator[int]:
        for begin in range(0, len(self._gone), _PUNCHED_AT_ONCE):
            some = self._gone[begin : begin + _PUNCHED_AT_ONCE]
            if some.any():
                for first, end in stretches(some):
                    self._punch(begin + first, begin + end)
                some[:] = False
                yield 1 + len(some) // _PUNCHED_PER_PAGE
        self._gone = np.zeros(0, np.bool_)

    def _punch_beyond(self) -> Iterator[int]:
        """Frees what guests have touched beyond the end, which other steps may move meanwhile."""
        page = 0
        while (place := _seek(self.descriptor, max(page, self.end) * PAGE, os.SEEK_DATA)) >= 0:
            page = place // PAGE + _PUNCHED_AT_ONCE
            self._punch(place // PAGE, page)
            yield 1 + _PUNCHED_AT_ONCE // _PUNCHED_PER_PAGE

    def _punch(self, begin: int, end: int) -> None:
        """Frees the pages from one number to before another. Reading a hole fills it, and guests can read all of it."""
        offset, size = ctypes.c_int64(begin * PAGE), ctypes.c_int64((end - begin) * PAGE)
        _libc.fallocate(self.descriptor, _PUNCH_HOLE | _KEEP_SIZE, offset, size)

    def take_over(self) -> Iterator[int]:
        """Reads what a worker before us has merged; yields the pages of each step."""
        begin = 0
        parts, places = [self._prints], [self._offsets]
        while (begin := _seek(self.descriptor, begin, os.SEEK_DATA)) >= 0:
            end = _seek(self.descriptor, begin, os.SEEK_HOLE)
            for at in range(begin, end, _READ_PAGES * PAGE):
                page, pages = at // PAGE, (min(end, at + _READ_PAGES * PAGE) - at) // PAGE
                with suppress(OSError):  # what cannot be read stays as it is, and nothing more is merged with it
                    parts.append(prints(memoryview(self.read(page, pages))))
                    places.append(np.arange(page, page + pages, dtype=np.uint32))
                yield pages
            self.end = max(self.end, end // PAGE)
            begin = end
        found = yield from first_of_each(np.concatenate(parts), np.concatenate(places))
        self._prints, self._offsets = found


def lock(descriptor: int) -> int:
    """Claims a store for this worker until it ends; raises BlockingIOError while another one has it.

    Two that append to the same store would overwrite what guests have mapped. The lock is on a description of its own:
    guests have copies of the other one, and would keep the lock when we end.
    """
    own = os.open(Door().path(f"proc/self/fd/{descriptor}"), os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(own)
        raise
    return own


def is_ours(descriptor: int) -> bool:
    """Whether a worker of ours has made this memfd; anybody can make one of that name."""
    found = os.fstat(descriptor)
    with suppress(OSError):
        marked = os.getxattr(descriptor, _OURS) == _MARK and fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) == SEALS
        return marked and (found.st_uid, found.st_mode, found.st_size) == (0, _MODE, STORE_BYTES)
    return False


def has_pages_from(descriptor: int, page: int) -> bool:
    """Whether a memfd has any page from that one on."""
    return _seek(descriptor, page * PAGE, os.SEEK_DATA) >= 0


def memfd_device() -> int:
    """Returns the device on which all memfds lie."""
    descriptor = os.memfd_create("ksmtuned-py-device", os.MFD_CLOEXEC)
    try:
        return os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)


def _create(name: str) -> int:
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.fchmod(descriptor, _MODE)
    os.ftruncate(descriptor, STORE_BYTES)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    with suppress(OSError):  # without that right, or such attributes in the kernel, no later worker adopts the store
        os.setxattr(descriptor, _OURS, _MARK)
    return descriptor


def _seek(descriptor: int, begin: int, what: int) -> int:
    try:
        return os.lseek(descriptor, begin, what)
    except OSError:  # ENXIO: only a hole is left from here on
        return -1
