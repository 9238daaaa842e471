"""System calls of threads that are in an odd state, for tests on x86-64, in machine code of its own."""

import ctypes
import errno
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable

from tests.scan.interrupted import call, libc

MAP_32BIT, EXECUTABLE = 0x40, 7
libc.mmap.restype = ctypes.c_void_p


def machine(code: bytes, data: bytes = b"") -> int:
    """Puts machine code and data into the lowest 2 GiB; returns the address of the code. The data are 512 behind it."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT
    address: int = libc.mmap(None, ctypes.c_size_t(mmap.PAGESIZE), EXECUTABLE, flags, -1, ctypes.c_long(0))
    ctypes.memmove(address, code, len(code))
    ctypes.memmove(address + 512, data, len(data))
    return address


_code: dict[str, int] = {}


def narrow_call() -> object:
    """Sleeps in a system call of 32-bit programs, by int 0x80, although it is a 64-bit program."""
    at = _code.get("narrow") or machine(b"", struct.pack("=ii", 0, 30_000_000))
    if "narrow" not in _code:
        head = b"\x53\xb8\xa2\x00\x00\x00\xbb" + struct.pack("<I", at + 512) + b"\x31\xc9\xcd\x80\x5b\xc3"
        ctypes.memmove(at, head, len(head))
        _code["narrow"] = at
    return ctypes.CFUNCTYPE(ctypes.c_int)(at)() or None


def x32_call() -> object:
    """Makes system calls with the numbers of the x32 ABI; a kernel without it answers ENOSYS."""
    time.sleep(0.0005)
    done = call(libc.syscall, 0x40000000 | 39)  # getpid
    return None if done[0] == os.getpid() or done[1] == errno.ENOSYS else done


def restartable() -> object:
    """Sleeps in a restartable sequence, for ever; the code at its abort begins it again.

    mov r12, rdi; mov r13, rsi; again: mov [r12], r13; mov eax, nanosleep; lea rdi, [r13+64]; xor esi, esi; syscall; jmp
    again; nop; then the signature, and the abort: jmp again.
    """
    offset = ctypes.c_ssize_t.in_dll(libc, "__rseq_offset").value
    begin, first = 6, 10
    code = b"\x49\x89\xfc\x49\x89\xf5\x4d\x89\x2c\x24\xb8\x23\x00\x00\x00\x49\x8d\x7d\x40\x31\xf6\x0f\x05"
    code += b"\xeb" + struct.pack("b", begin - len(code) - 2)
    last = len(code)
    code += b"\x90" + struct.pack("<I", 0x53053053)
    abort = len(code)
    code += b"\xeb" + struct.pack("b", begin - abort - 2)
    at = machine(code)
    sequence = struct.pack("=IIQQQ32xqq", 0, 0, at + first, last - first, at + abort, 0, 3_000_000)
    ctypes.memmove(at + 512, sequence, len(sequence))
    pointer = libc.pthread_self
    pointer.restype = ctypes.c_ulong
    return ctypes.CFUNCTYPE(None, ctypes.c_ulong, ctypes.c_ulong)(at)(pointer() + offset + 8, at + 512)


def sleeping_code() -> bytes:
    """Returns code that sleeps again and again, for ever, for as long as its argument points to.

    mov r13, rdi; again: mov eax, nanosleep; mov rdi, r13; xor esi, esi; syscall; jmp again.
    """
    loop = b"\xb8\x23\x00\x00\x00\x4c\x89\xef\x31\xf6\x0f\x05"
    return b"\x49\x89\xfd" + loop + b"\xeb" + struct.pack("b", -len(loop) - 2)


def resting_handler() -> int:
    """Returns the address of a signal handler that sleeps for 10 ms.

    mov eax, nanosleep; mov edi, data; xor esi, esi; syscall; ret.
    """
    at = machine(b"", struct.pack("=qq", 0, 10_000_000))
    code = b"\xb8\x23\x00\x00\x00\xbf" + struct.pack("<I", at + 512) + b"\x31\xf6\x0f\x05\xc3"
    ctypes.memmove(at, code, len(code))
    return at


def stepped() -> object:
    """Sleeps for ever with the trap flag set: each instruction ends with a SIGTRAP, whose handler does nothing.

    pushfq; or qword [rsp], 0x100; popfq.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTRAP})
    handler = machine(b"\xc3")
    assert not libc.sigaction(signal.SIGTRAP, struct.pack("=Q128sixxxxQ", handler, b"", 0, 0), None)
    at = machine(b"\x9c\x48\x81\x0c\x24\x00\x01\x00\x00\x9d" + sleeping_code(), struct.pack("=qq", 0, 3_000_000))
    return ctypes.CFUNCTYPE(None, ctypes.c_ulong)(at)(at + 512)


ODD: dict[str, Callable[[], object]] = {
    "narrow": narrow_call, "x32": x32_call, "restartable": restartable, "stepped": stepped,
}  # fmt: skip
