"""Getting a foothold in a guest: its first system calls on our behalf, run from the unused end of its vdso page.

The thread that runs them finds its way back by itself, should we be killed at any point (`one_call`).
"""

import array
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

from ksmtuned_py.backends.scan.process import Process
from ksmtuned_py.backends.scan.refusal import Refused
from ksmtuned_py.backends.scan.remap import ptrace
from ksmtuned_py.backends.scan.remap.architecture import MACHINE, Context
from ksmtuned_py.backends.scan.remap.area import AREA_BYTES, AREA_NAME, CODE_BYTES, HEADER_BYTES, NOTES, Area, Left
from ksmtuned_py.backends.scan.remap.threads import Thread, Threads

_READ, _WRITE, _EXEC = 1, 2, 4
_SHARED, _PRIVATE, _ANONYMOUS = 1, 2, 0x20
_DONTFORK, _DONTDUMP = 10, 16
_CMSG_CLOEXEC = 0x40000000
_PAGE = 4096


class FirstCalls:
    """In a with block: system calls in one stopped thread of the guest."""

    def __init__(self, process: Process, threads: Threads) -> None:
        self._process = process
        self._threads = threads
        self._mem = -1
        self._code = _vdso_end(process)
        self._data = self._code + MACHINE.DATA_AT
        self._thread = best_worker(threads, lambda context: bool(context.first_data(self._data, 0)))

    def __enter__(self) -> Self:
        if any(self._code <= thread.context.pc < self._code + MACHINE.ROOM for thread in self._threads.all):
            raise Refused("one of its threads is still on its way back")
        self._mem = os.open("mem", os.O_RDWR | os.O_CLOEXEC, dir_fd=self._process.directory)
        try:
            self._write(self._data, self._thread.context.first_data(self._data, self._thread.mask))
            self._write(self._code, MACHINE.one_call(self._code, self._data))
        except OSError as error:
            os.close(self._mem)
            raise Refused(f"its vdso page cannot be written: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._thread.moved and self._thread in self._threads.all:
                self._back()
            self._write(self._code, bytes(MACHINE.ROOM))
        except OSError:
            pass  # it has ended
        finally:
            os.close(self._mem)

    def call(self, name: str, *arguments: int) -> int:
        """Runs it; raises Refused when it fails, Gone when the guest has ended."""
        six = (*arguments, *([0] * (6 - len(arguments))))
        self._threads.move(self._thread, self._code, MACHINE.NR[name], *six)
        self._threads.step_to_syscall(self._thread)
        self._threads.step_to_syscall(self._thread)
        result = MACHINE.result(partial(ptrace.registers, self._thread.number))
        if result >= 2**64 - 4095:
            raise Refused(f"{name} in it failed: {os.strerror(2**64 - result)}")
        return result

    def write(self, address: int, data: bytes) -> None:
        """Into its memory."""
        self._write(address, data)

    def read(self, address: int, size: int) -> bytes:
        """From its memory."""
        return os.pread(self._mem, size, address)

    def _back(self) -> None:
        """Only on the way out of a stop that we asked for does the kernel begin an interrupted call again."""
        ptrace.interrupt(self._thread.number)
        ptrace.resume(self._thread.number)
        self._threads.stop_again(self._thread)
        self._threads.put_back()

    def _write(self, address: int, data: bytes) -> None:
        os.pwrite(self._mem, data, address)


def best_worker(threads: Threads, able: Callable[[Context], bool] = lambda _: True) -> Thread:
    """The thread that suits best to work for us; raises Refused when there is none."""
    found = [thread for thread in threads.all if thread.context.suitability >= 0 and able(thread.context)]
    if not found:
        raise Refused("none of its threads can work for us at the moment")
    return max(found, key=lambda thread: thread.context.suitability)


def install(process: Process, threads: Threads, area: Area, store: int) -> tuple[socket.socket, int, int]:
    """Maps the area in the guest and gives it the store; returns our end of the line, and its numbers of both."""
    with FirstCalls(process, threads) as first:
        _clear_up(first, process, threads)
        page = first.call("mmap", 0, _PAGE, _READ | _WRITE, _PRIVATE | _ANONYMOUS, 2**64 - 1, 0)
        kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC
        first.call("socketpair", socket.AF_UNIX, kind, 0, page)
        line, other = struct.unpack("=ii", first.read(page, 8))
        ours = _take(process, other)
        first.call("close", other)
        area_there, store_there = _hand_over(first, ours, line, page, [area.descriptor, store])
        address = first.call("mmap", 0, AREA_BYTES, _READ | _EXEC, _SHARED, area_there, 0)
        first.call("mprotect", address + CODE_BYTES, AREA_BYTES - CODE_BYTES, _READ | _WRITE)
        for advice in (_DONTFORK, _DONTDUMP):
            first.call("madvise", address, AREA_BYTES, advice)
        first.call("close", area_there)
        first.call("munmap", page, _PAGE)
    area.settle(address, line, store_there)
    return ours, line, store_there


def _clear_up(first: FirstCalls, process: Process, threads: Threads) -> None:
    """Takes away what a worker that was killed has left: its descriptors, and memory it had set aside.

    The area stays: a thread may be in a signal handler that returns to the code in it.
    """
    for mapping in process.mappings():
        if mapping.name != f"/memfd:{AREA_NAME} (deleted)" or mapping.offset or mapping.size != CODE_BYTES:
            continue  # of another kind, or killed before it was of use
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
    """What file a descriptor of the guest is: device and inode."""
    with suppress(OSError):
        found = os.stat(f"fd/{descriptor}", dir_fd=process.directory)
        return found.st_dev, found.st_ino
    return 0, 0


def _take(process: Process, number: int) -> socket.socket:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    taken: int = libc.syscall(438, process.pidfd, number, 0)  # pidfd_getfd, Linux 5.6+
    if taken < 0:
        raise Refused(f"pidfd_getfd: {os.strerror(ctypes.get_errno())}")
    return socket.socket(fileno=taken)


def _hand_over(first: FirstCalls, ours: socket.socket, line: int, page: int, descriptors: list[int]) -> tuple[int, int]:
    """Passes descriptors through the line; the guest's numbers of them."""
    passed = array.array("i", descriptors)
    ours.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
    byte, control, vector = page + 256, page + 512, page + 128
    first.write(vector, struct.pack("=QQ", byte, 1))
    first.write(page, struct.pack("=QIIQQQQI4x", 0, 0, 0, vector, 1, control, 64, 0))  # struct msghdr
    first.call("recvmsg", line, page, _CMSG_CLOEXEC)
    area, store = struct.unpack("=ii", first.read(control + 16, 8))
    return area, store


def _vdso_end(process: Process) -> int:
    """Unused bytes behind the last section header of the vdso, which every program has."""
    for mapping in process.mappings():
        if mapping.name != "[vdso]":
            continue
        image = bytearray(mapping.end - mapping.start)
        process.read([memoryview(image)], mapping.start)
        if image[:4] != b"\x7fELF":
            break
        begin = struct.unpack_from("<Q", image, 40)[0]
        size, count = struct.unpack_from("<HH", image, 58)
        free = (begin + size * count + 63) & ~63
        room = image[free : free + MACHINE.ROOM]
        place: int = mapping.start + free
        ours = MACHINE.one_call(place, place + MACHINE.DATA_AT)  # left by a worker that was killed in its first calls
        if len(room) == MACHINE.ROOM and (not any(room) or room.startswith(ours)):
            return place
    raise Refused("there is no room in its vdso for the first calls")
