"""Keeps a foothold in a guest: stops its threads, has one of them run system calls, and lets them all go on."""

import resource
import socket
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from ksmtuned_py.scanner.process import Gone, Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.foothold.area import Area, Operation
from ksmtuned_py.scanner.remap.foothold.install import best_worker, file_key, install, key_of
from ksmtuned_py.scanner.remap.foothold.permits import Permits
from ksmtuned_py.scanner.remap.stop import ptrace, system
from ksmtuned_py.scanner.remap.stop.hurry import hurry
from ksmtuned_py.scanner.remap.stop.onethread import Thread
from ksmtuned_py.scanner.remap.stop.stops import Busy, Stops, patiently
from ksmtuned_py.scanner.remap.stop.threads import LAST_PATIENCE_SECONDS, Lost, Threads

_ANSWER_SECONDS = 0.02
_LEAST_SECONDS = 0.001
"""How long a thread of the guest may take to begin what it is told, even when the time of the stop is over."""
_SPARE_DESCRIPTORS = 64
"""Descriptors that are left for looking at processes."""
FileKey = tuple[int, int]
"""Device and inode of a file."""


@dataclass(slots=True)
class Session:
    """The foothold in one guest; it lasts until the guest ends or this worker does."""

    area: Area
    line: socket.socket
    line_there: int
    store_there: int
    line_key: FileKey
    store_key: FileKey
    permits: Permits
    stops: Stops

    @classmethod
    def begin(cls, process: Process, store: int, stops: Stops) -> Generator[int, None, "Session"]:
        """Gets a foothold, with a descriptor of the store that cannot be written to; raises Refused or Gone."""
        with _gone_when_killed(process):
            pid = process.target.pid
            permits = yield from patiently(stops, pid, partial(Permits.of, process, stops))
            return (yield from patiently(stops, pid, partial(cls._begin, process, store, stops, permits)))

    @classmethod
    def _begin(cls, process: Process, store: int, stops: Stops, permits: Permits) -> "Session":
        mappings, area = process.note_mappings(), Area()
        try:
            if area.descriptor > resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_DESCRIPTORS:
                raise Refused("the scan worker may have no more files open, of which each guest takes some")
            with hurry(), _gone_when_killed(process), Threads(process, stops) as threads:
                permits.check(process, threads)
                line, line_there, store_there, line_key = install(process, threads, mappings, area, store)
            area.close_descriptor()
            return cls(area, line, line_there, store_there, line_key, key_of(store), permits, stops)
        except BaseException:  # whatever it was, the memory is of no use then
            area.close()
            raise

    def stage(self, address: int, size: int) -> None:
        """Notes memory that we have made in the guest, for whoever cleans up after us."""
        self.area.stage(address, size)

    @contextmanager
    def window(self, process: Process) -> Iterator["Window"]:
        """Stops all threads for a with block; nothing in the guest is changed unless the window is told to."""
        with hurry(), _gone_when_killed(process), Threads(process, self.stops) as threads:
            self._check(process, threads)
            window = Window(self, threads, process.pidfd)
            try:
                yield window
            finally:
                window.end()

    def close(self) -> None:
        """Lets go: the guest finds its line closed, which means nothing to it while it runs freely."""
        self.line.close()
        self.area.close()

    def _check(self, process: Process, threads: Threads) -> None:
        """Checks that what we use in the guest is still ours: the guest may have closed it, or begun to use it."""
        self.permits.check(process, threads)
        nonce = bytearray(16)
        process.read([memoryview(nonce)], self.area.nonce_address)
        if bytes(nonce) != self.area.nonce:
            raise Lost("the memory shared with it is gone")
        if file_key(process, self.line_there) != self.line_key or file_key(process, self.store_there) != self.store_key:
            raise Lost("it has closed descriptors that it did not open")
        if any(self.area.contains(thread.context.pc) for thread in threads.all):
            raise Refused("one of its threads is still on its way back")


class Window:
    """A guest that is stopped, with what can be done to it."""

    def __init__(self, session: Session, threads: Threads, pidfd: int) -> None:
        self.begun_seconds = threads.begun_seconds
        """Monotonic time at which its threads were asked to stop."""
        self.vain_seconds = 0.0
        """How long it was waited in vain for a thread of the guest to begin what it was told."""
        self._session = session
        self._threads = threads
        self._pidfd = pidfd
        self._worker: Thread | None = None

    def run(self, operations: list[Operation]) -> list[int]:
        """Has the guest run the operations, and returns their results; raises Gone when it ends in the middle.

        From here on a kill of ours leaves the operations to be finished, and then all threads to find their way back.
        Busy when no thread has got a processor to begin them: then none will.
        """
        area, can_be_taken_back = self._session.area, not self._worker
        worker = self._worker or self._set_aside()
        area.table(operations)
        told_seconds = time.monotonic()
        try:
            self._session.line.send(b".", socket.MSG_NOSIGNAL)
            late_seconds = max(self.begun_seconds + self._session.stops.longest_seconds - told_seconds, _LEAST_SECONDS)
            answer = self._answer(worker, late_seconds)
            if can_be_taken_back and not answer:
                self._take_back(told_seconds)
            while not answer:
                if time.monotonic() > self.begun_seconds + LAST_PATIENCE_SECONDS:
                    self._give_up(worker)
                answer = self._answer(worker, _ANSWER_SECONDS)
        except OSError:
            raise Gone("it has ended") from None
        if answer != b".":
            raise Gone("it has ended")
        return [area.result(index) for index in range(len(operations))]

    def end(self) -> None:
        """Lets all go on, and takes the worker out of its loop, for which it needs a processor once more.

        Killed in between, we leave the gate open: the worker finds its line closed, and its way back.
        """
        if self._worker and self._worker in self._threads.all:
            self._session.area.shut_gate(shut=False)
            self._threads.stop_again(self._worker)
            self._threads.put_back()

    def _take_back(self, told_seconds: float) -> None:
        """Takes our byte out of the line, and raises Busy, unless the guest has it already.

        The kernel gives the byte to one of us. So either all of the table is run, or nothing of it.
        """
        with suppress(OSError):  # the guest has begun, or has ended
            with socket.socket(fileno=system.call("pidfd_getfd", self._pidfd, self._session.line_there, 0)) as there:
                there.recv(1, socket.MSG_DONTWAIT)
            self.vain_seconds = time.monotonic() - told_seconds
            raise Busy("the host is too busy: a thread of it got no processor in the time that a stop takes")

    def _give_up(self, worker: Thread) -> NoReturn:
        """Gives up as if we were killed: once the guest runs, it finishes the rest, opens the gate, and all go on."""
        self._threads.abandon(worker)
        raise Lost("it did not do in time what it was told to: its control group is frozen, or has no time")

    def _set_aside(self) -> Thread:
        """Points every thread to its slot. Killed before the gate is shut, all go on; after that, slot 0 goes first."""
        area, threads = self._session.area, self._threads
        worker = best_worker(threads)
        waiting = [thread for thread in threads.all if thread is not worker]
        area.table([])
        area.shut_gate(shut=False)
        for slot, thread in enumerate([worker, *waiting]):
            area.keep(slot, thread.context, thread.mask)
        for slot, thread in enumerate([worker, *waiting]):
            threads.move(thread, area.code(slot))
        area.shut_gate(shut=True)
        ptrace.resume(worker.number)
        self._worker = worker
        return worker

    def _answer(self, worker: Thread, seconds: float) -> bytes:
        """Returns one byte when the operations are done; b'' when they are not done in that time."""
        self._session.line.settimeout(seconds)
        try:
            return self._session.line.recv(1) or b"closed"
        except TimeoutError:
            self._threads.nudge(worker)
            return b""


@contextmanager
def _gone_when_killed(process: Process) -> Iterator[None]:
    """Raises Gone for ESRCH: that is how a guest that is killed while it stands still answers every request."""
    try:
        yield
    except ProcessLookupError:
        raise Gone(process.target.name) from None
