"""Keeps a foothold in a guest: stops its threads, has one of them run system calls, and lets them all go on."""

import socket
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from ksmtuned_py.scanner.process import Gone, Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.foothold.area import Area, Operation
from ksmtuned_py.scanner.remap.foothold.install import best_worker, file_key, install, key_of
from ksmtuned_py.scanner.remap.foothold.permits import Permits
from ksmtuned_py.scanner.remap.stop import ptrace
from ksmtuned_py.scanner.remap.stop.hurry import hurry
from ksmtuned_py.scanner.remap.stop.onethread import Thread
from ksmtuned_py.scanner.remap.stop.stops import Stops, patiently
from ksmtuned_py.scanner.remap.stop.threads import Lost, Threads

_ANSWER_SECONDS = 0.02
_TABLE_SECONDS = 0.5
"""How long a table of operations may take: some milliseconds, unless a busy host keeps the guest from running."""
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
            permits = yield from patiently(stops, partial(Permits.of, process, stops))
            return (yield from patiently(stops, partial(cls._begin, process, store, stops, permits)))

    @classmethod
    def _begin(cls, process: Process, store: int, stops: Stops, permits: Permits) -> "Session":
        area = Area()
        try:
            with hurry(), _gone_when_killed(process), Threads(process, stops) as threads:
                permits.check(process, threads)
                line, line_there, store_there = install(process, threads, area, store)
                line_key, store_key = file_key(process, line_there), key_of(store)
                area.note_files(*line_key, *store_key)
            line.settimeout(_ANSWER_SECONDS)
            return cls(area, line, line_there, store_there, line_key, store_key, permits, stops)
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
            window = Window(self, threads)
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

    def __init__(self, session: Session, threads: Threads) -> None:
        self.begun_seconds = threads.begun_seconds
        """Monotonic time at which its threads were asked to stop."""
        self._session = session
        self._threads = threads
        self._worker: Thread | None = None

    def run(self, operations: list[Operation]) -> list[int]:
        """Has the guest run the operations, and returns their results; raises Gone when it ends in the middle.

        From here on a kill of ours leaves the operations to be finished, and then all threads to find their way back.
        """
        area, line = self._session.area, self._session.line
        worker = self._worker or self._set_aside()
        area.table(operations)
        deadline = time.monotonic() + _TABLE_SECONDS
        try:
            line.send(b".", socket.MSG_NOSIGNAL)
            while not (answer := self._answer(worker)):
                if time.monotonic() > deadline:
                    self._give_up(worker)
        except OSError:
            raise Gone("it has ended") from None
        if answer != b".":
            raise Gone("it has ended")
        return [area.result(index) for index in range(len(operations))]

    def end(self) -> None:
        """Lets all others go on, then takes the worker out of its loop, for which it needs a processor once more.

        Killed in between, we leave the gate open: the worker finds its line closed, and its way back.
        """
        if self._worker and self._worker in self._threads.all:
            self._session.area.shut_gate(shut=False)
            self._threads.let_others_go(self._worker)
            self._threads.stop_again(self._worker)
            self._threads.put_back()

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

    def _answer(self, worker: Thread) -> bytes:
        """Returns one byte when the operations are done; b'' when only a signal was put aside meanwhile."""
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
