"""Counts the time that stops of guests take, and lets go of threads that stop too late for theirs.

A thread that was seized and asked to stop runs on until it comes out of the kernel, be it after hours. When it then
stops, it is let go of at once, at the signal by which the kernel tells of it.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import TypeVar

from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.stop import ptrace

_FIRST_ALONE_SECONDS, _LONGEST_ALONE_SECONDS = 1.0, 64.0
_TRIES, _RUN_TIMES = 5, 20
"""Tries of a stop on a busy host, and how many stops' time the guest runs in between: it loses 5 % at most."""
_REST_TIMES = 10
"""How many times as long as it stood still a guest runs after a stop that took too long."""
_WAITED_TIMES = 40
"""The longest such rest that is waited for here, in times of a stop; in a longer one others have their turn."""
T = TypeVar("T")


class NotStopped(Refused):
    """Raised when a guest did not stand still in the time that a stop may take."""


class Busy(NotStopped):
    """Raised when a thread got no processor in that time: the host's trouble, soon over or not the guest's own."""


class Resting(NotStopped):
    """Raised while a guest has to run on after a stop that took too long: it was stopped, and nothing has failed."""


class LeftAlone:
    """Leaves guests that could not be stopped alone for 1, 2, 4 ... seconds."""

    def __init__(self) -> None:
        self._ends: dict[int, tuple[float, float]] = {}
        """For each PID, until when it is left alone, and how many seconds it was."""

    def is_due(self, pid: int) -> bool:
        """Whether it may be stopped now."""
        return time.monotonic() >= self._ends.get(pid, (0.0, 0.0))[0]

    def begin(self, pid: int) -> None:
        """Leaves the guest alone, twice as long as the last time, after it could not be stopped."""
        seconds = min(_LONGEST_ALONE_SECONDS, 2 * self._ends.get(pid, (0.0, _FIRST_ALONE_SECONDS / 2))[1])
        self._ends[pid] = time.monotonic() + seconds, seconds

    def forget(self, pid: int) -> None:
        """Forgets how long the guest was left alone, once it could be stopped."""
        self._ends.pop(pid, None)


class Stops:
    """All stops of one worker, also those that failed: they took the guest's time as well."""

    def __init__(self, longest_seconds: float) -> None:
        self.longest_seconds = longest_seconds
        """How long a guest may take to stand still."""
        self.seconds: deque[float] = deque(maxlen=10_000)
        self.failed = 0
        self.left_alone = LeftAlone()
        self._rests: dict[int, float] = {}
        """For each process whose last stop took too long, until when it runs on."""
        self._late: dict[int, int] = {}
        """Threads that have not stopped yet, and the process of each."""

    @property
    def over(self) -> int:
        """How many of the latest stops took longer than they may: a thread of the guest had to wait for a processor."""
        return sum(seconds > self.longest_seconds for seconds in self.seconds)

    def took(self, pid: int, seconds: float) -> None:
        """Counts a stop of the process; after one that took too long, it runs on before anything else stops it."""
        self.seconds.append(seconds)
        now_seconds = time.monotonic()
        self._rests = {other: until for other, until in self._rests.items() if until > now_seconds and other != pid}
        if seconds > self.longest_seconds:
            self._rests[pid] = now_seconds + _REST_TIMES * seconds

    def rest_seconds(self, pid: int) -> float:
        """Returns for how long the process has to run on before it is stopped again."""
        return max(0.0, self._rests.get(pid, 0.0) - time.monotonic())

    def leave(self, thread: int, pid: int) -> None:
        """Takes over a thread that was asked to stop, and lets go of it when it does."""
        self._late[thread] = pid
        signal.signal(signal.SIGCHLD, lambda *_: self.release_stopped())
        self.release_stopped()  # it may have stopped before the signal was heard

    def refuse_late(self, pid: int) -> None:
        """Raises NotStopped while a thread of the process is still to stop, or the process has to run on."""
        self.release_stopped()
        if self.rest_seconds(pid):
            raise Resting("a stop took too long, for the host is too busy: it runs on for ten times as long")
        if pid in self._late.values():
            raise NotStopped("one of its threads has not stopped since it was asked to: it waits for a device")

    def release_stopped(self) -> None:
        """Lets go of threads that have stopped by now."""
        for thread in tuple(self._late):
            if _let_go(thread):
                self._late.pop(thread, None)
        if not self._late and signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def patiently(stops: Stops, pid: int, work: Callable[[], T]) -> Generator[int, None, T]:
    """Does something for which a guest is stopped; tries again where a busy host has kept it from stopping.

    A rest of the guest after that is waited for, unless it is long. This yields meanwhile, so that whoever waits for
    the worker is heard.
    """
    for _ in range(_TRIES - 1):
        with suppress(Busy):
            done = work()
            yield from _let_run(stops, _short_rest(stops, pid))
            return done
        yield from _let_run(stops, max(_RUN_TIMES * stops.longest_seconds, _short_rest(stops, pid)))
    return work()


def _short_rest(stops: Stops, pid: int) -> float:
    seconds = stops.rest_seconds(pid)
    return seconds if seconds <= _WAITED_TIMES * stops.longest_seconds else 0.0


def _let_run(stops: Stops, seconds: float) -> Iterator[int]:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, stops.longest_seconds))
        yield 1


def _let_go(thread: int) -> bool:
    """Lets go of a thread that has stopped; returns whether it has, or has ended. Delivers a signal it stops for."""
    while True:
        try:
            status = ptrace.wait(thread, block=False)
        except ChildProcessError:
            return True
        if status is None:
            return False
        if not os.WIFSTOPPED(status):
            return True
        if ptrace.is_asked_stop(status) or ptrace.is_group_stop(status):
            return ptrace.detach(thread)
        try:
            ptrace.resume(thread, 0 if status >> 16 else os.WSTOPSIG(status))
        except ProcessLookupError:
            return True
