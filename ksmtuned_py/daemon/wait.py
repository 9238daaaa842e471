"""Waits for a deadline, signals, a rise of memory pressure, or programs that start. The daemon has no other wait."""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Protocol

from ksmtuned_py.model import Wake

SIGNAL_WORDS = {
    signal.SIGTERM: Wake.STOP,
    signal.SIGINT: Wake.STOP,
    signal.SIGHUP: Wake.RELOAD,
    signal.SIGUSR1: Wake.ASKED,
}


GATHER_SECONDS = 0.1
"""The time in which programs that start are gathered.

At 1000 programs a second, waking for each takes 4.7 % of a core. Waking for ten batches of 100 takes below 1 %. Both
are measured.
"""
MOST_GATHER_SECONDS = 1.0
ROUNDS = 9
"""The wait after a tick that a started program called for, in times that tick's length.

So ticks for new programs take at most a tenth of a core, whoever floods us, as long as one takes 0.1 s at most. Longer
ones take more of it, since a guest that must not merge is to be seen within a second.
"""


class ArrivalSource(Protocol):
    """Tells which programs were started."""

    def fileno(self) -> int:
        """A descriptor, readable when there is something to drain."""

    def drain(self) -> set[int]:
        """The PIDs that started a program since the last drain."""


class EventSource(Protocol):
    """Tells that something happened: a virtual machine started (libvirt), or switching is done (the enforcer)."""

    def fileno(self) -> int:
        """A descriptor, readable when there is something to drain."""

    def drain(self) -> bool:
        """Empty the descriptor, and return whether it happened since the last drain."""


class Signals:
    """Receives signals as bytes in a pipe. So none can slip past between checking a flag and waiting."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_handlers = {number: signal.signal(number, _by_the_pipe) for number in SIGNAL_WORDS}
        self._old_wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def fileno(self) -> int:
        """A descriptor, readable when a signal came."""
        return self._read

    def drain(self) -> frozenset[Wake]:
        """Empty the pipe, and return the words of the signals that came."""
        try:
            numbers = os.read(self._read, 4096)
        except BlockingIOError:
            return frozenset()
        return frozenset(SIGNAL_WORDS[number] for number in map(signal.Signals, numbers) if number in SIGNAL_WORDS)

    def close(self) -> None:
        """Put the handlers and the wake-up descriptor back as they were."""
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)


class Waiter:
    """Waits for whatever comes first. `heed` tells whether programs that started are worth waking for."""

    def __init__(
        self,
        signals: Signals,
        *,
        pressure: int | None = None,
        arrivals: ArrivalSource | None = None,
        domains: EventSource | None = None,
        switches: EventSource | None = None,
        heed: Callable[[set[int]], bool] = bool,
    ) -> None:
        self._signals = signals
        self._pressure = pressure
        self._arrivals = arrivals
        self._sources = {
            source.fileno(): (source, word)
            for source, word in ((domains, Wake.GUEST), (switches, Wake.SWITCHED))
            if source is not None
        }
        self._heed = heed
        self._poll = select.poll()
        self._poll.register(signals.fileno(), select.POLLIN)
        if pressure is not None:
            self._poll.register(pressure, select.POLLPRI)
        for descriptor in self._sources:
            self._poll.register(descriptor, select.POLLIN)
        self._deaf_until_seconds = 0.0
        self._ended_seconds = time.monotonic()
        self._tick_seconds = 0.0
        """The time between the last two waits."""

    def until(self, deadline_seconds: float) -> frozenset[Wake]:
        """Wait, and return the words for what ended the wait; none at the deadline (monotonic seconds)."""
        self._tick_seconds = time.monotonic() - self._ended_seconds
        try:
            return self._until(deadline_seconds)
        finally:
            self._ended_seconds = time.monotonic()

    def _until(self, deadline_seconds: float) -> frozenset[Wake]:
        while True:
            left = max(0.0, deadline_seconds - time.monotonic())
            events = self._poll.poll(min(left, self._deaf_for()) * 1000)  # polled once even past the deadline
            words = frozenset(word for descriptor, event in events for word in self._words(descriptor, event))
            if words or not left:
                return words

    def _deaf_for(self) -> float:
        """Seconds for which programs that start are left to gather, after the last that were heard."""
        if self._arrivals is None:
            return float("inf")
        deaf = self._deaf_until_seconds - time.monotonic()
        if deaf > 0:
            return deaf
        self._poll.register(self._arrivals.fileno(), select.POLLIN)
        return float("inf")

    def _words(self, descriptor: int, event: int) -> Iterator[Wake]:
        if descriptor == self._signals.fileno():
            yield from self._signals.drain()
        elif descriptor == self._pressure:
            if event & (select.POLLERR | select.POLLNVAL):
                self._poll.unregister(descriptor)  # the trigger is gone, so we go on without it
            else:
                yield Wake.PRESSURE
        elif descriptor in self._sources:
            source, word = self._sources[descriptor]
            if source.drain():
                yield word
        elif self._arrivals is not None:
            heeded = self._heed(self._arrivals.drain())
            self._poll.unregister(self._arrivals.fileno())
            deaf = min(ROUNDS * self._tick_seconds, MOST_GATHER_SECONDS) if heeded else 0.0
            self._deaf_until_seconds = time.monotonic() + max(deaf, GATHER_SECONDS)
            if heeded:
                yield Wake.GUEST


def _by_the_pipe(_number: int, _frame: FrameType | None) -> None:
    """Do nothing, because the wake-up descriptor has told already."""
