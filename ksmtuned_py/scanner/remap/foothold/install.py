"""Gets a foothold in a guest: its first system calls for us run from the unused end of its vdso page.

The thread that runs them finds its way back by itself, should we be killed at any point (`one_call`).
"""

import array
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Self

from ksmtuned_py.door.text import kernel_lines
from ksmtuned_py.guests.mappings import Mapping, parse_maps
from ksmtuned_py.scanner.process import Gone, Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.foothold.area import AREA_BYTES, AREA_NAME, CODE_BYTES, HEADER_BYTES, NOTES, Area, Left
from ksmtuned_py.scanner.remap.processors.architecture import MACHINE, Context
from ksmtuned_py.scanner.remap.stop import ptrace, system
from ksmtuned_py.scanner.remap.stop.onethread import Thread
from ksmtuned_py.scanner.remap.stop.stops import NotStopped
from ksmtuned_py.scanner.remap.stop.threads import Lost, Threads

_READ, _WRITE, _EXEC = 1, 2, 4
_SHARED, _PRIVATE, _ANONYMOUS = 1, 2, 0x20
_DONTFORK, _DONTDUMP = 10, 16
_CMSG_CLOEXEC = 0x40000000
_PAGE = 4096
_VDSO, _AREA = "[vdso]", f"/memfd:{AREA_NAME} (deleted)"
_MOST_LEFT = 200
"""The most areas that are cleared up in one stop; each takes up to 0.3 ms."""
LOCKS = "memory that it maps is locked (mlockall): what was shared would be copied, or be locked with it"
_MESSAGE = struct.Struct("=QIIQQQQI4x")
"""struct msghdr: name, its length, vectors, their number, control data, its length, flags."""
_CONTROL, _CONTROL_HEAD = struct.Struct("=Qiiii"), 16
"""struct cmsghdr: length, level, kind; then two descriptors."""


class FirstCalls:
    """Makes system calls in one stopped thread of the guest, in a with block."""

    def __init__(self, process: Process, threads: Threads, mappings: list[Mapping]) -> None:
        self._process = process
        self._threads = threads
        self._mem = -1
        self.known_places = _known_places(process) if process.has_changed() else _known(mappings)
        self._code = _vdso_end(process, self.known_places)
        self._data = self._code + MACHINE.DATA_AT
        self._thread = best_worker(threads, lambda context: bool(context.first_data(self._data, 0)))

    def __enter__(self) -> Self:
        if any(self._code <= thread.context.pc < self._code + MACHINE.CALL_BYTES for thread in self._threads.all):
            raise Refused("one of its threads is still on its way back")
        self._mem = os.open("mem", os.O_RDWR | os.O_CLOEXEC, dir_fd=self._process.directory)
        try:
            self._write(self._code, MACHINE.one_call(self._code, self._data))  # first: whoever comes later knows it
            self._write(self._data, self._thread.context.first_data(self._data, self._thread.mask))
        except OSError as error:
            os.close(self._mem)
            raise Refused(f"its vdso page cannot be written: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._thread in self._threads.all:  # otherwise it has ended, or this code takes it back
                if self._thread.moved:
                    self._back()
                self._write(self._code, bytes(MACHINE.CALL_BYTES))
        except OSError:
            pass  # it has ended
        finally:
            os.close(self._mem)

    def call(self, name: str, *arguments: int) -> int:
        """Makes the call in the guest; raises Refused when it fails, Gone when the guest has ended."""
        six = (*arguments, *([0] * (6 - len(arguments))))
        self._threads.move(self._thread, self._code, MACHINE.NR[name], *six)
        self._threads.step_to_syscall(self._thread)
        self._threads.step_to_syscall(self._thread)
        result = MACHINE.result(partial(ptrace.registers, self._thread.number))
        if result >= 2**64 - 4095:
            raise Refused(f"{name} in it failed: {os.strerror(2**64 - result)}")
        return result

    def write(self, address: int, data: bytes) -> None:
        """Writes into the guest's memory."""
        self._write(address, data)

    def read(self, address: int, size: int) -> bytes:
        """Reads from the guest's memory; raises Gone when it has none any more, as after a kill."""
        found = os.pread(self._mem, size, address)
        if len(found) < size:
            raise Gone(self._process.target.name)
        return found

    def _back(self) -> None:
        """Takes the thread back. The kernel restarts a call on the way out of a stop for a signal, or by us, only."""
        if not self._threads.stands_at_sigstop(self._thread):
            ptrace.interrupt(self._thread.number)
            ptrace.resume(self._thread.number)
            self._threads.stop_again(self._thread)
        self._threads.put_back()

    def _write(self, address: int, data: bytes) -> None:
        os.pwrite(self._mem, data, address)


def best_worker(threads: Threads, able: Callable[[Context], bool] = lambda _: True) -> Thread:
    """Returns the thread that suits best to work for us; raises Refused when none does."""
    found = [thread for thread in threads.all if thread.context.suitability >= 0 and able(thread.context)]
    if not found:
        raise Refused("none of its threads can work for us at the moment")
    return max(found, key=lambda thread: thread.context.suitability)


def install(
    process: Process, threads: Threads, mappings: list[Mapping], area: Area, store: int
) -> tuple[socket.socket, int, int, tuple[int, int]]:
    """Maps the area in the guest and gives it the store; `mappings` are those that were noted right before.

    Returns our end of the line, the guest's numbers of both, and device and inode of its end of the line.
    """
    with FirstCalls(process, threads, mappings) as first:
        _clear_up(first, process, threads)
        page = first.call("mmap", 0, _PAGE, _READ | _WRITE, _PRIVATE | _ANONYMOUS, 2**64 - 1, 0)
        with _undone(first, "munmap", page, _PAGE):
            ours, line = _line(first, process, page)
            with _undone(first, "close", line), _closed_on_error(ours):
                area_there, store_there = _hand_over(first, process, ours, (line, page), (area.descriptor, store))
                with _undone(first, "close", area_there), _undone(first, "close", store_there):
                    address = _map(first, process, area_there)
        first.call("close", area_there)
        first.call("munmap", page, _PAGE)
        line_key = file_key(process, line)
        area.note_place(address, line, store_there)
        area.note_files(*line_key, *key_of(store))
    return ours, line, store_there, line_key


def _line(first: FirstCalls, process: Process, page: int) -> tuple[socket.socket, int]:
    """Makes a pair of sockets and takes one; returns ours, and the guest's number of the other."""
    kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC
    first.call("socketpair", socket.AF_UNIX, kind, 0, page)
    line, other = struct.unpack("=ii", first.read(page, 8))
    with _undone(first, "close", line), _undone(first, "close", other):
        ours = _take(process, other)
    first.call("close", other)
    return ours, line


def _map(first: FirstCalls, process: Process, area_there: int) -> int:
    before = locked(process)
    address = first.call("mmap", 0, AREA_BYTES, _READ | _EXEC, _SHARED, area_there, 0)
    if locked(process) != before:
        first.call("munmap", address, AREA_BYTES)
        raise Refused(LOCKS)
    first.call("mprotect", address + CODE_BYTES, AREA_BYTES - CODE_BYTES, _READ | _WRITE)
    for advice in (_DONTFORK, _DONTDUMP):
        first.call("madvise", address, AREA_BYTES, advice)
    return address


def locked(process: Process) -> str:
    """Returns how much memory the guest has locked, for comparing."""
    return next((line for line in kernel_lines(process.read_text("status")) if line.startswith("VmLck:")), "")


@contextmanager
def _undone(first: FirstCalls, name: str, *arguments: int) -> Iterator[None]:
    """Undoes what was done before when a call in the with block is refused."""
    try:
        yield
    except (NotStopped, Lost):  # the guest would not run the undoing call either
        raise
    except (Refused, OSError):
        first.call(name, *arguments)
        raise


@contextmanager
def _closed_on_error(ours: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:  # a Ctrl-C, too
        ours.close()
        raise


def _clear_up(first: FirstCalls, process: Process, threads: Threads) -> None:
    """Takes away what a worker that was killed has left: its descriptors, and memory it had set aside.

    The area stays: a thread may be in a signal handler that returns to the code in it.
    """
    # What is no such area is of another kind, or was left by a worker that was killed before using it.
    left_there = [one for one in first.known_places if one.name == _AREA and one.size == CODE_BYTES and not one.offset]
    if len(left_there) > _MOST_LEFT:
        raise Refused(f"it has more than {_MOST_LEFT} areas of workers that were killed")
    for mapping in left_there:
        end = mapping.start + AREA_BYTES
        if any(mapping.start <= thread.context.pc < end for thread in threads.all):
            raise Refused("one of its threads is still on its way back")
        left = Left.parse(first.read(mapping.start + CODE_BYTES, HEADER_BYTES))
        for descriptor, key in ((left.line, left.line_key), (left.store, left.store_key)):
            if any(key) and file_key(process, descriptor) == key:
                first.call("close", descriptor)
        if left.stage[1]:
            first.call("munmap", *left.stage)
        first.write(mapping.start + CODE_BYTES + NOTES, bytes(HEADER_BYTES - NOTES))


def file_key(process: Process, descriptor: int) -> tuple[int, int]:
    """Returns device and inode of the file that a descriptor of the guest is."""
    with suppress(OSError):
        return system.file(f"fd/{descriptor}", process.directory).key
    return 0, 0


def key_of(descriptor: int) -> tuple[int, int]:
    """Returns device and inode of the file that a descriptor of ours is."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _take(process: Process, number: int) -> socket.socket:
    taken = -1
    try:
        taken = system.call("pidfd_getfd", process.pidfd, number, 0)  # Linux 5.6+
        return socket.socket(fileno=taken)
    except OSError as error:
        if taken >= 0:  # it is no socket: somebody has written another number into the guest's memory
            os.close(taken)
        raise Refused(f"a descriptor of it cannot be had (pidfd_getfd): {error.strerror}") from None


def _hand_over(
    first: FirstCalls, process: Process, ours: socket.socket, there: tuple[int, int], sent: tuple[int, int]
) -> tuple[int, int]:
    """Passes two descriptors through the line; returns the guest's numbers. Raises Refused unless both arrived.

    `there` is the guest's end of the line, and a page of its memory. A descriptor that has arrived alone is closed
    again.
    """
    line, page = there
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", sent))
    ours.sendmsg([b"."], [rights], socket.MSG_DONTWAIT)  # it might not be the socket that the guest has just made
    byte, control, vector = page + 256, page + 512, page + 128
    first.write(vector, struct.pack("=QQ", byte, 1))
    first.write(page, _MESSAGE.pack(0, 0, 0, vector, 1, control, 64, 0))
    first.call("recvmsg", line, page, _CMSG_CLOEXEC)
    length, flags = _MESSAGE.unpack(first.read(page, _MESSAGE.size))[6:]
    size, level, kind, *numbers = _CONTROL.unpack(first.read(control, _CONTROL.size))
    arrived = numbers[: max(0, min(length, size) - _CONTROL_HEAD) // 4]
    pairs = zip(arrived, sent, strict=False)
    ours_there = [number for number, one in pairs if file_key(process, number) == key_of(one)]
    whole = (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and not flags & socket.MSG_CTRUNC
    if whole and len(ours_there) == len(sent):
        return ours_there[0], ours_there[1]
    for number in ours_there:
        first.call("close", number)
    raise Refused("it takes no two more descriptors: its limit is reached, or a security module keeps them from it")


def _known_places(process: Process) -> list[Mapping]:
    """Returns the vdso and the areas in the guest, which stands still: other lines, of merged pages, may be many."""
    lines = kernel_lines(process.read_text("maps"))
    return _known(parse_maps("\n".join(line for line in lines if line.endswith((_VDSO, _AREA)))))


def _known(mappings: list[Mapping]) -> list[Mapping]:
    return [mapping for mapping in mappings if mapping.name in (_VDSO, _AREA)]


def _vdso_end(process: Process, known_places: list[Mapping]) -> int:
    """Finds the unused bytes behind the last section header of the vdso, which every program has."""
    for mapping in known_places:
        if mapping.name != _VDSO or "x" not in mapping.permissions:
            continue
        image = bytearray(mapping.end - mapping.start)
        process.read([memoryview(image)], mapping.start)
        if image[:4] != b"\x7fELF":
            break
        begin = struct.unpack_from("<Q", image, 40)[0]
        size, count = struct.unpack_from("<HH", image, 58)
        free = (begin + size * count + 63) & ~63
        unused = image[free : free + MACHINE.CALL_BYTES]
        place: int = mapping.start + free
        ours = MACHINE.one_call(place, place + MACHINE.DATA_AT)  # left by a worker that was killed in its first calls
        if len(unused) == MACHINE.CALL_BYTES and (not any(unused) or unused.startswith(ours)):
            return place
    raise Refused("too little of its vdso is unused for the first calls")
