"""A guest that never rests, and has more memory to which it does not write: `python -m tests.scan.resting MIB`."""

import ctypes
import mmap
import os
import signal
import threading
import time

from tests.scan import writer
from tests.scan.contents import equal_page
from tests.scan.interrupted import FUTEX, libc

PAGE = mmap.PAGESIZE
MADV_GUARD_INSTALL = 102
FUTEX_WAIT, FUTEX_WAKE = 0, 1
WORDS, DISTANCE = 20, 17 * PAGE
BYTES = 8 << 20
WAKE_SECONDS = 10.0
memory = mmap.mmap(-1, BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))


def fill() -> None:
    """Fills it with pages that are equal to others'."""
    equal = b"".join(equal_page(number) for number in range(256))
    memory[:] = equal * (BYTES // len(equal))


def where() -> str:
    return f"{begin} {BYTES}"


def guard() -> str:
    """Has any access to its last page end with a fault, without a change of mappings."""
    done = libc.madvise(ctypes.c_void_p(begin + BYTES - PAGE), ctypes.c_size_t(PAGE), MADV_GUARD_INSTALL)
    return os.strerror(ctypes.get_errno()) if done else "guarded"


def sleep() -> str:
    """Has threads sleep until words in it change, by futexes that other processes might share."""
    for at in range(begin, begin + WORDS * DISTANCE, DISTANCE):
        value = ctypes.c_uint32.from_address(at).value
        threading.Thread(target=_wait, args=(at, value), daemon=True).start()
    return "asleep"


def _wait(address: int, value: int) -> None:
    """Waits in a thread that no signal interrupts."""
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    _futex(address, FUTEX_WAIT, value)


def wake() -> str:
    """Wakes who sleeps there, and says how many were asleep. Who was stopped takes a moment until it sleeps again."""
    left, until_seconds = set(range(begin, begin + WORDS * DISTANCE, DISTANCE)), time.monotonic() + WAKE_SECONDS
    while left and time.monotonic() < until_seconds:
        left -= {at for at in left if _futex(at, FUTEX_WAKE, 1)}
        time.sleep(0.01)
    return f"{WORDS - len(left)} of {WORDS}"


def _futex(address: int, operation: int, value: int) -> int:
    number = FUTEX[os.uname().machine]
    done: int = libc.syscall(number, ctypes.c_void_p(address), operation, ctypes.c_uint32(value), None, None, 0)
    return done


if __name__ == "__main__":
    writer.COMMANDS |= {"where": where, "guard": guard, "sleep": sleep, "wake": wake}
    writer.main(fill)
