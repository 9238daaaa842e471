"""Makes us urgent while a guest stands still, and ends us where we are kept from letting it go."""

import ctypes
import gc
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ksmtuned_py.scanner.remap.stop import system

_URGENT = -10
_MOST_SECONDS = 2
"""After this time a guest has to run on, whoever keeps us; no stop takes half as long by itself."""
_EVENT = struct.Struct("=Qii48x")
"""struct sigevent: value, signal, SIGEV_SIGNAL."""
_timers: list[int] = []
"""The timer that ends this process, once it has one."""


def end_if_kept() -> None:
    """Has the kernel kill this process when it is in a stop for too long: whoever traces it, stops or freezes it.

    The guest then runs on at once, as after any other kill.
    """
    event, timer = ctypes.create_string_buffer(_EVENT.pack(0, signal.SIGKILL, 0)), ctypes.c_int()
    with suppress(OSError):  # without that call in the kernel it is as it was
        system.call("timer_create", 1, ctypes.addressof(event), ctypes.addressof(timer))  # CLOCK_MONOTONIC
        _timers.append(timer.value)


@contextmanager
def hurry() -> Iterator[None]:
    """Makes us urgent in the with block, also for a daemon of idle priority, because a guest stands still."""
    nice, policy, before = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.sched_getparam(0)
    gc.disable()
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, _URGENT)
    _set_timer(_MOST_SECONDS)
    try:
        yield
    finally:
        _set_timer(0)
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        os.sched_setscheduler(0, policy, before)
        gc.enable()


def _set_timer(seconds: int) -> None:
    time = ctypes.create_string_buffer(struct.pack("=4q", 0, 0, seconds, 0))  # struct itimerspec
    for timer in _timers:
        system.call("timer_settime", timer, 0, ctypes.addressof(time), 0)
