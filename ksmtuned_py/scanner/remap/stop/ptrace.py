"""Calls ptrace(2) by ctypes, for the few requests that stopping all threads of a process and moving one aside need."""

import ctypes
import errno
import os
import signal
import struct
from typing import NoReturn

_CONT, _DETACH, _SYSCALL = 7, 17, 24
_GETREGSET, _SETREGSET = 0x4204, 0x4205
_SEIZE, _INTERRUPT = 0x4206, 0x4207
_GETSIGMASK, _SETSIGMASK = 0x420A, 0x420B
_SECCOMP_GET_FILTER = 0x420C
_FILTER_INSTRUCTION_BYTES = 8
_GET_RSEQ = 0x420F
_GET_DISPATCH = 0x4211
_NT_PRSTATUS = 1
_O_TRACESYSGOOD = 1
_EVENT_STOP = 128
_WALL = 0x40000000
SYSCALL_TRAP = signal.SIGTRAP | 0x80
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}
_RSEQ_CONFIGURATION = struct.Struct("=QIII4x")
_DISPATCH = struct.Struct("=4Q")  # struct ptrace_sud_config: mode, selector, offset, length
_RSEQ_CS_OFFSET = 8  # struct rseq: cpu_id_start, cpu_id, rseq_cs

_libc = ctypes.CDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_filter = ctypes.create_string_buffer(4096 * _FILTER_INSTRUCTION_BYTES)  # BPF_MAXINSNS


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _request(request: int, thread: int, address: int = 0, data: int = 0) -> int:
    done: int = _ptrace(request, thread, address, data)
    if done == -1:
        _raise(thread)
    return done


def _raise(thread: int) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, f"ptrace of thread {thread}: {os.strerror(number)}")


def seize(thread: int) -> None:
    """Makes us a thread's tracer, without stopping it; raises OSError. When we end it runs on, and is not killed."""
    _request(_SEIZE, thread, 0, _O_TRACESYSGOOD)


def interrupt(thread: int) -> None:
    """Makes a thread stop soon; the kernel begins a system call in which it sleeps again afterwards."""
    _request(_INTERRUPT, thread)


def resume(thread: int, deliver: int = 0) -> None:
    """Lets a thread run on, with that signal."""
    _request(_CONT, thread, 0, deliver)


def resume_to_syscall(thread: int) -> None:
    """Lets a thread run to the next beginning or end of a system call."""
    _request(_SYSCALL, thread)


def detach(thread: int, deliver: int = 0) -> bool:
    """Lets a thread run on untraced, with that signal; False when it was killed meanwhile, and we have to reap it."""
    try:
        _request(_DETACH, thread, 0, deliver)
    except ProcessLookupError:
        return is_over(thread)
    return True


def is_over(thread: int) -> bool:
    """Whether a thread that was killed has ended; then it is reaped, because its parent would wait for that."""
    try:
        status = wait(thread, block=False)
    except ChildProcessError:
        return True
    return status is not None and not os.WIFSTOPPED(status)


def wait(thread: int, *, block: bool) -> int | None:
    """Returns its wait status; None when nothing has happened (without block). Raises ChildProcessError when gone."""
    found, status = os.waitpid(thread, _WALL | (0 if block else os.WNOHANG))
    return status if found else None


def is_asked_stop(status: int) -> bool:
    """Whether it stopped because of `interrupt`, and for nothing else."""
    return os.WIFSTOPPED(status) and status >> 16 == _EVENT_STOP and os.WSTOPSIG(status) == signal.SIGTRAP


def is_group_stop(status: int) -> bool:
    """Whether it stopped with its whole process, by SIGSTOP and the like."""
    return os.WIFSTOPPED(status) and status >> 16 == _EVENT_STOP and os.WSTOPSIG(status) != signal.SIGTRAP


def is_fault(status: int) -> bool:
    """Whether it stopped for what its own instruction did. Nobody needs that signal when the instruction was ours."""
    return status >> 16 == 0 and os.WSTOPSIG(status) in _FAULTS


def registers(thread: int, note: int, size: int) -> bytes:
    """Returns the beginning of one of its register sets; b"" when this processor or kernel does not have it."""
    buffer = bytearray(size)
    anchor = (ctypes.c_char * size).from_buffer(buffer)
    vector = _Vector(ctypes.addressof(anchor), size)
    try:
        _request(_GETREGSET, thread, note, ctypes.addressof(vector))
    except OSError as error:
        if note != _NT_PRSTATUS and error.errno in (errno.EINVAL, errno.ENODEV):
            return b""
        raise
    if vector.length != size:
        raise OSError(errno.ENOEXEC, f"thread {thread} runs in another mode than 64 bit")
    return bytes(buffer)


def set_registers(thread: int, values: bytearray) -> None:
    """Sets all general registers of a thread at once."""
    anchor = (ctypes.c_char * len(values)).from_buffer(values)
    vector = _Vector(ctypes.addressof(anchor), len(values))
    _request(_SETREGSET, thread, _NT_PRSTATUS, ctypes.addressof(vector))


def signal_mask(thread: int) -> int:
    """Returns the signals that a thread blocks, as a bit mask."""
    mask = ctypes.c_uint64()
    _request(_GETSIGMASK, thread, 8, ctypes.addressof(mask))
    return mask.value


def set_signal_mask(thread: int, mask: int) -> None:
    """Makes a thread block these signals, and no others."""
    _request(_SETSIGMASK, thread, 8, ctypes.addressof(ctypes.c_uint64(mask)))


def restartable_sequence(thread: int) -> int:
    """Returns the address of a thread's pointer to its restartable sequence (rseq(2)); 0 when it uses none."""
    buffer = ctypes.create_string_buffer(_RSEQ_CONFIGURATION.size)
    try:
        _request(_GET_RSEQ, thread, _RSEQ_CONFIGURATION.size, ctypes.addressof(buffer))
    except OSError as error:
        if error.errno in (errno.EIO, errno.EINVAL):  # Linux before 5.13: no way to know
            return 0
        raise
    pointer: int = _RSEQ_CONFIGURATION.unpack(buffer.raw)[0]
    return pointer + _RSEQ_CS_OFFSET if pointer else 0


def dispatches_itself(thread: int) -> bool:
    """Whether its system calls from foreign code, as ours are, go to a handler of its own (prctl(2))."""
    buffer = ctypes.create_string_buffer(_DISPATCH.size)
    try:
        _request(_GET_DISPATCH, thread, _DISPATCH.size, ctypes.addressof(buffer))
    except OSError as error:
        if error.errno in (errno.EIO, errno.EINVAL):  # Linux before 6.4: it shows when the first call does not come
            return False
        raise
    return bool(_DISPATCH.unpack(buffer.raw)[0])


def seccomp_filters(thread: int, most: int) -> list[bytes]:
    """Returns a thread's filter programs, the oldest first and no more than so many.

    Raises OSError (EACCES when we have a filter ourselves).
    """
    found: list[bytes] = []
    while len(found) < most:
        try:
            length = _request(_SECCOMP_GET_FILTER, thread, len(found), ctypes.addressof(_filter))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):  # there are no more of them, or none at all
                return found
            raise
        found.append(ctypes.string_at(_filter, length * _FILTER_INSTRUCTION_BYTES))
    return found
