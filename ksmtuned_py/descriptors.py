"""Open files and threads are budgeted: as many as the system allows, a few set aside for giving back."""

import os
import resource
from contextlib import suppress
from threading import Thread

SET_ASIDE = 32
"""Giving back reads and writes a dozen files at a time, and starts a child with pipes."""


def raise_limit() -> None:
    """The soft limit, 1024 as a rule, is for programs that use select(): we may have as many as the hard one says."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # where even that is forbidden, the guests that are too many are read by path
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def begin(thread: Thread) -> bool:
    """Start it; whether there could be one more (TasksMax of the unit, RLIMIT_NPROC)."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


class Reserve:
    """Descriptors that nobody else can use up until they are needed."""

    def __init__(self) -> None:
        self._descriptors = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(SET_ASIDE)]

    def release(self) -> None:
        """They can be had from now on."""
        while self._descriptors:
            os.close(self._descriptors.pop())
