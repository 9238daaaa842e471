"""Makes us urgent while a guest stands still."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_URGENT = -10


@contextmanager
def hurry() -> Iterator[None]:
    """Makes us urgent in the with block, also for a daemon of idle priority, because a guest stands still."""
    nice, policy, before = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.sched_getparam(0)
    gc.disable()
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, _URGENT)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        os.sched_setscheduler(0, policy, before)
        gc.enable()
