"""Scan workers that are forked instead of started, for tests that kill one after the other: a start takes 0.2 s of CPU.

What such a worker does is the same. How one is started is tried by all other tests.
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from unittest.mock import patch

from ksmtuned_py.backends import scanlink
from ksmtuned_py.config import Scan
from ksmtuned_py.scanner import worker
from ksmtuned_py.scanner.mark import Mark

FORK = get_context("fork")
STANDARD = 3


class ForkedWorker:
    """A worker as its parent sees it: as much of subprocess.Popen as the parent needs."""

    def __init__(self, end: socket.socket, mark: int, root: str, settings: Scan) -> None:
        with end:
            self._process = FORK.Process(target=_work, args=(end.fileno(), mark, root, settings))
            self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("worker", timeout or 0.0)
        return code

    def kill(self) -> None:
        self._process.kill()


def _work(end: int, mark: int, root: str, settings: Scan) -> None:
    """Is the worker. It keeps nothing open but what a started one has, or it would not hear of its parent's end."""
    for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - the descriptor it reads with is among them
        if number >= STANDARD and number not in (end, mark):
            with suppress(OSError):
                os.close(number)
    worker.main(end, Mark(mark), root, scanlink.for_scanner(settings))


@contextmanager
def forked_workers() -> Iterator[None]:
    """Has backends fork their workers."""
    with patch.object(scanlink, "_spawn", ForkedWorker):
        yield
