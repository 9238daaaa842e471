"""Makes us urgent while a guest stands still, and ends us where we are kept from letting it go."""

import ctypes
import gc
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ksmtuned_py.scanner.mark import KEPT_SECONDS
from ksmtuned_py.scanner.remap.stop import system

_URGENT = -10
_EVENT = struct.Struct("=Qii48x")
"""struct sigevent: value, signal, SIGEV_SIGNAL."""
_timers: list[int] = []
"""The timer that ends this process, once it has one."""
_told: list[Callable[[float], None]] = []
"""Who is told since when a guest stands still."""


def end_if_kept(tell: Callable[[float], None]) -> None:
    """Has the kernel kill this process when it is in a stop for too long: whoever traces it, stops or freezes it.

    The guest then runs on at once, as after any other kill. `tell` is told since when it stands still; 0 for not.
    """
    _told.append(tell)
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
    _set_timer(KEPT_SECONDS)
    _tell(time.monotonic())
    try:
        yield
    finally:
        _set_timer(0)
        _tell(0.0)
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        os.sched_setscheduler(0, policy, before)
        gc.enable()


def _tell(since_seconds: float) -> None:
    for tell in _told:
        tell(since_seconds)


def _set_timer(seconds: int) -> None:
    until = ctypes.create_string_buffer(struct.pack("=4q", 0, 0, seconds, 0))  # struct itimerspec
    for timer in _timers:
        system.call("timer_settime", timer, 0, ctypes.addressof(until), 0)
