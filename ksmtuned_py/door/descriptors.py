"""Budgets open files and threads: as many as the system allows, with a few files set aside for giving back."""

import os
import resource
from contextlib import suppress
from threading import Thread

SET_ASIDE = 32
"""Descriptors set aside. Giving back has a dozen files open at a time, and starts a child with pipes."""


def raise_limit() -> None:
    """Raise the soft limit of descriptors to the hard one.

    The soft limit, 1024 as a rule, is for programs that use select(), and we use poll().
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # where that is forbidden, guests beyond the limit are read by path
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def begin(thread: Thread) -> bool:
    """Start a thread, and return whether there could be one more (TasksMax of the unit, RLIMIT_NPROC)."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


class Reserve:
    """Keeps some descriptors open, so that nobody else can use them up before they are needed."""

    def __init__(self) -> None:
        self._descriptors = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(SET_ASIDE)]

    def release(self) -> None:
        """Close the descriptors, so that others can be opened."""
        while self._descriptors:
            os.close(self._descriptors.pop())
