"""System calls that a stop interrupts, for tests: each says what is wrong with what it has returned.

Most are begun again by the kernel. By signal(7), epoll_wait and sigtimedwait end with EINTR instead.
"""

import ctypes
import errno
import os
import signal
import struct
import time
from collections.abc import Callable

FUTEX = {"x86_64": 202, "aarch64": 98}
libc = ctypes.CDLL(None, use_errno=True)
_usleep = ctypes.cast(libc.usleep, ctypes.c_void_p)


def call(function: Callable[..., int], *arguments: object) -> tuple[int, int, float]:
    """Returns the result, the errno and the seconds of one call."""
    ctypes.set_errno(0)
    begun = time.monotonic()
    done = function(*arguments)
    return done, ctypes.get_errno() if done < 0 else 0, time.monotonic() - begun


def judged(done: tuple[int, int, float], seconds: float, *allowed: tuple[int, int]) -> object:
    """Returns what is wrong with the result: another one, or one that came too early."""
    result, number, took = done
    early = took < seconds and number != errno.EINTR
    return None if (result, number) in allowed and not early else f"{result}/{errno.errorcode.get(number)}/{took:.4f}"


SECONDS, LONG = 0.03, struct.pack("=qq", 0, 30_000_000)
INTERRUPTED = (-1, errno.EINTR)


def nanosleep() -> object:
    return judged(call(libc.nanosleep, LONG, None), SECONDS, (0, 0))


def poll() -> object:
    return judged(call(libc.poll, None, 0, 30), SECONDS, (0, 0))


def ppoll() -> object:
    return judged(call(libc.ppoll, None, 0, LONG, None), SECONDS, (0, 0))


def select() -> object:
    left = ctypes.create_string_buffer(struct.pack("=qq", 0, 30_000))
    return judged(call(libc.select, 0, None, None, None, left), SECONDS, (0, 0))


def futex() -> object:
    word = ctypes.c_uint32(7)
    done = call(libc.syscall, FUTEX[os.uname().machine], ctypes.byref(word), 0, 7, LONG, None, 0)
    return judged(done, SECONDS, (-1, errno.ETIMEDOUT))


def epoll() -> object:
    events = ctypes.create_string_buffer(64)
    return judged(call(libc.epoll_wait, _polled(), events, 1, 30), SECONDS, (0, 0), INTERRUPTED)


def sigtimedwait() -> object:
    never = struct.pack("=16Q", 1 << (signal.SIGUSR2 - 1), *[0] * 15)
    return judged(call(libc.sigtimedwait, never, None, LONG), SECONDS, (-1, errno.EAGAIN), INTERRUPTED)


def wait4() -> object:
    stack = ctypes.create_string_buffer(1 << 16)
    top = (ctypes.addressof(stack) + len(stack) - 64) & ~15
    pid = libc.clone(_usleep, ctypes.c_void_p(top), signal.SIGCHLD, ctypes.c_void_p(30_000))
    return judged(call(libc.waitpid, pid, None, 0), 0, (pid, 0))


_pipe = os.pipe()
_sent = [0, 0]


def pipe_write() -> object:
    _sent[0] += 1
    time.sleep(0.01)
    return judged(call(libc.write, _pipe[1], struct.pack("=Q", _sent[0]), 8), 0, (8, 0))


def pipe_read() -> object:
    """Blocks until the other thread has sent the next number, and must not lose or double one."""
    _sent[1] += 1
    buffer = ctypes.create_string_buffer(8)
    done = call(libc.read, _pipe[0], buffer, 8)
    number = struct.unpack("=Q", buffer.raw)[0]
    return judged(done, 0, (8, 0)) or (number != _sent[1] and f"{number} for {_sent[1]}")


_epolls: list[int] = []


def _polled() -> int:
    if not _epolls:
        _epolls.append(libc.epoll_create1(0))
    return _epolls[0]


CALLS: dict[str, Callable[[], object]] = {
    "nanosleep": nanosleep, "poll": poll, "ppoll": ppoll, "select": select, "futex": futex, "epoll": epoll,
    "sigtimedwait": sigtimedwait, "wait4": wait4, "pipe_write": pipe_write, "pipe_read": pipe_read,
}  # fmt: skip
