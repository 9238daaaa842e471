"""Open files are budgeted: as many as the system allows, and a few set aside for giving back."""

import os
import resource
from contextlib import suppress

SET_ASIDE = 32
"""Giving back reads and writes a dozen files at a time, and starts a child with pipes."""


def raise_limit() -> None:
    """The soft limit, 1024 as a rule, is for programs that use select(): we may have as many as the hard one says."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # where even that is forbidden, the guests that are too many are read by path
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Reserve:
    """Descriptors that nobody else can use up until they are needed."""

    def __init__(self) -> None:
        self._descriptors = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(SET_ASIDE)]

    def release(self) -> None:
        """They can be had from now on."""
        while self._descriptors:
            os.close(self._descriptors.pop())
