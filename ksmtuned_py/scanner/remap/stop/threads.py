"""Stops all threads of a guest for a moment. They run on when we let go, and also when we are killed."""

import os
import signal
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from ksmtuned_py.scanner.process import Gone, Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.processors.architecture import Context
from ksmtuned_py.scanner.remap.processors.layout import ASLEEP
from ksmtuned_py.scanner.remap.stop import ptrace
from ksmtuned_py.scanner.remap.stop.onethread import DISPATCHES, Thread, look
from ksmtuned_py.scanner.remap.stop.stops import Busy, NotStopped, Stops
from ksmtuned_py.sensors.stat import thread_state

MOST_THREADS = 127
TOO_MANY_THREADS = f"it has more than {MOST_THREADS} threads"
LAST_PATIENCE_SECONDS = 0.5
"""How long a stop may take in all once a thread works for us: a limit of CPU time may keep it from running."""
_ALL_SIGNALS = 2**64 - 1
_POLL_SECONDS = 0.00002
_TRACED = "t"
_GONE = "X"
_STOPPED = "somebody else has stopped it"
_UNTRACEABLE = (
    "one of its threads cannot be traced: it is a kernel worker or a debugger's, it has ended, "
    "or a seccomp filter forbids us to trace (systemd/scan_remap.conf)"
)


class Lost(Refused):
    """Raised when the foothold in the guest is gone; another one may be tried."""


class Threads:
    """Stops every thread in a with block; afterwards each is as it was and runs."""

    def __init__(self, process: Process, stops: Stops) -> None:
        self._process = process
        self._stops = stops
        self.begun_seconds = 0.0
        """Monotonic time at which its threads were asked to stop."""
        self._ended_seconds = 0.0
        """When those went on who were awake; 0 when that is at the very end."""
        self._seized: set[int] = set()
        self._unstopped: set[int] = set()
        self._at_sigstop: set[int] = set()
        """Threads that stand at a SIGSTOP, which is theirs when they are let go of. Sent anew, it would come late."""
        self.all: list[Thread] = []

    def __enter__(self) -> Self:
        self._stop()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.put_back()
        self._let_go()

    def _stop(self) -> None:
        self._stops.refuse_late(self._process.target.pid)
        self.begun_seconds, self._ended_seconds = time.monotonic(), 0.0
        try:
            self._stop_all(self.begun_seconds + self._stops.longest_seconds)
            self.all = [look(self._process, number) for number in sorted(self._seized)]
        except BaseException:  # a Ctrl-C, too: no thread may stay stopped
            self._let_go()
            self._stops.failed += 1
            raise

    def move(self, thread: Thread, address: int, *call: int) -> None:
        """Points a thread elsewhere, with a system call's number and arguments if given.

        Registers come first: the code there restores the mask, should we be killed in between.
        """
        thread.moved = True
        ptrace.set_registers(thread.number, thread.context.elsewhere(address, *call).raw())
        ptrace.set_signal_mask(thread.number, _ALL_SIGNALS)

    def put_back(self) -> None:
        """Gives every moved thread its own registers and signal mask again; all threads must be stopped."""
        self._put_back(self.all)

    def _put_back(self, threads: list[Thread]) -> None:
        for thread in threads:
            if thread.moved:
                with suppress(ProcessLookupError):  # somebody has killed it: there is nothing to put back
                    ptrace.set_signal_mask(thread.number, thread.mask)
                    ptrace.set_registers(thread.number, self._own(thread).raw())
                thread.moved = thread.ran = False

    def _let_others_go(self, worker: Thread) -> None:
        others = [thread for thread in self.all if thread is not worker]
        self._put_back(others)
        self._detach(self._seized - self._unstopped - {worker.number})
        if others and worker.context.suitability == ASLEEP:
            self._ended_seconds = time.monotonic()
        self.all = [worker]

    def stop_again(self, thread: Thread) -> None:
        """Lets all others go on, and waits until a thread that was resumed has stopped; raises Gone or Lost."""
        self._let_others_go(thread)
        if thread.stands:
            return
        self._interrupt(thread)
        try:
            if not self._await(thread.number, time.monotonic() + LAST_PATIENCE_SECONDS, later=True):
                raise Gone(self._process.target.name)
        except NotStopped:
            self.abandon(thread)
            raise Lost("one of its threads did not stop again: its control group is frozen, or has no time") from None
        thread.ran = True

    def abandon(self, thread: Thread) -> None:
        """Gives up a thread that is late: nothing is put back, since all find their way once it runs."""
        self._interrupt(thread)
        self.all = []

    def _interrupt(self, thread: Thread) -> None:
        with suppress(ProcessLookupError):
            ptrace.interrupt(thread.number)
        self._unstopped.add(thread.number)

    def nudge(self, thread: Thread) -> None:
        """Lets a resumed thread run on if it has stopped for anything, like the notice of a SIGCONT.

        It is given up at a SIGSTOP: once it is continued, it finishes what it does, and all find their way. `interrupt`
        is not used, because it would stop a thread that has stopped already once more. Refused when it cannot run our
        code: then it stands where it is.
        """
        status = self._status(thread.number)
        if status is None:
            return
        if not os.WIFSTOPPED(status):
            self._forget(thread.number)
            raise Gone(self._process.target.name)
        if self._is_sigstop(thread.number, status):
            self.all = []
            raise Lost(_STOPPED)
        if ptrace.is_fault(status):
            thread.ran = thread.stands = True
            raise _cannot_run(status)
        ptrace.resume(thread.number)

    def stands_at_sigstop(self, thread: Thread) -> bool:
        """Whether a thread has come to a SIGSTOP, which stops the guest once the thread is let go of."""
        return thread.number in self._at_sigstop

    def step_to_syscall(self, thread: Thread) -> None:
        """Runs it to the next edge of a system call, whatever else it stops for."""
        deadline = self.begun_seconds + LAST_PATIENCE_SECONDS
        while True:
            ptrace.resume_to_syscall(thread.number)
            status = self._next_status(thread, deadline)
            if not os.WIFSTOPPED(status):
                self._forget(thread.number)
                raise Gone(self._process.target.name)
            if os.WSTOPSIG(status) == ptrace.SYSCALL_TRAP:
                return
            if os.WSTOPSIG(status) == signal.SIGSYS:
                raise Refused(DISPATCHES)
            if self._is_sigstop(thread.number, status):
                raise Lost(_STOPPED)
            if ptrace.is_fault(status):
                raise _cannot_run(status)

    def _next_status(self, thread: Thread, deadline: float) -> int:
        while (status := self._status(thread.number)) is None:
            if time.monotonic() > deadline:
                self.stop_again(thread)
                raise NotStopped("it does not run on when it is told to: its control group is frozen, or has no time")
            time.sleep(_POLL_SECONDS)
        return status

    def _stop_all(self, deadline: float) -> None:
        """Stops all threads. They can begin others until they are stopped, so it looks again until none is new."""
        while new := self._numbers() - self._seized:
            if time.monotonic() > deadline:
                raise NotStopped("its threads begin and end faster than they can be stopped")
            if len(self._seized | new) > MOST_THREADS:
                raise Refused(TOO_MANY_THREADS)
            for number in new:
                self._seize(number)
            for number in new & self._unstopped:
                if not self._await(number, deadline):
                    self._seized.discard(number)

    def _numbers(self) -> set[int]:
        return {int(name) for name in self._process.names("task", MOST_THREADS + 1)}

    def _seize(self, number: int) -> None:
        try:
            ptrace.seize(number)
        except ProcessLookupError:
            return  # it has ended meanwhile
        except PermissionError:
            if number != self._process.target.pid and self._state(number) in ("Z", _GONE):
                return  # so has this one, but for being taken away
            raise Refused(_UNTRACEABLE) from None
        with suppress(ProcessLookupError):
            ptrace.interrupt(number)
        if self._state(number) != _GONE:  # it stays that one: a traced thread's number is not given out again
            self._seized.add(number)
            self._unstopped.add(number)
        else:  # the number was another process's by then
            self._stops.leave(number, 0)

    def _await(self, number: int, deadline: float, *, later: bool = False) -> bool:
        """Waits until a thread has stopped as asked; False when it has ended. Delivers signals it stops for."""
        while True:
            status = self._status(number)
            if status is None:
                if time.monotonic() > deadline:
                    raise self._unwilling(number)
                time.sleep(_POLL_SECONDS)
            elif not os.WIFSTOPPED(status):
                self._forget(number)
                return False
            elif ptrace.is_asked_stop(status):
                self._unstopped.discard(number)
                return True
            elif ptrace.is_group_stop(status):
                self._unstopped.discard(number)
                raise Refused(_STOPPED)
            elif later and self._is_sigstop(number, status):
                self._unstopped.discard(number)
                return True
            elif later:
                ptrace.resume(number)
            else:
                ptrace.resume(number, os.WSTOPSIG(status))

    def _unwilling(self, number: int) -> NotStopped:
        """Returns the error that tells why a thread has not stopped in time. It may have stopped since it was asked."""
        if self._state(number) in ("R", _TRACED):
            return Busy("the host is too busy: one of its threads got no processor in the time that a stop takes")
        return NotStopped("one of its threads does not stop: it waits for a device")

    def _state(self, number: int) -> str:
        """Returns the letter of a thread's state; X also for what is no thread of this process."""
        try:
            return thread_state(self._process.read_text(f"task/{number}/stat"))
        except Gone:
            return _GONE

    def _status(self, number: int) -> int | None:
        try:
            return ptrace.wait(number, block=False)
        except ChildProcessError:
            return 0  # another thread's exec or exit has taken it away

    def _is_sigstop(self, number: int, status: int) -> bool:
        """Whether a thread has stopped to be given a SIGSTOP; if so, it gets it when it is let go of."""
        found = status >> 16 == 0 and os.WSTOPSIG(status) == signal.SIGSTOP
        if found:
            self._at_sigstop.add(number)
        return found

    def _own(self, thread: Thread) -> Context:
        """Returns the registers to go on with: a signal that came while it worked for us may have to end its call."""
        interrupted = thread.context.interrupted()
        if not thread.ran or interrupted is thread.context:
            return thread.context
        with suppress(OSError, Gone):
            status = self._process.status(f"task/{thread.number}/status")
            waiting = int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)
            if self.stands_at_sigstop(thread) or waiting & ~thread.mask:
                return interrupted
        return thread.context

    def _forget(self, number: int) -> None:
        self._seized.discard(number)
        self._unstopped.discard(number)
        self.all = [thread for thread in self.all if thread.number != number]

    def _let_go(self) -> None:
        self._detach(self._seized - self._unstopped)
        for number in self._unstopped:
            self._stops.leave(number, self._process.target.pid)
        self._seized.clear()
        self._unstopped.clear()
        self._at_sigstop.clear()
        self._stops.took(self._process.target.pid, (self._ended_seconds or time.monotonic()) - self.begun_seconds)

    def _detach(self, numbers: set[int]) -> None:
        for number in sorted(numbers, reverse=True):  # the first thread is reaped last
            if not ptrace.detach(number, signal.SIGSTOP if number in self._at_sigstop else 0):
                self._stops.leave(number, self._process.target.pid)
        self._seized -= numbers


def _cannot_run(status: int) -> Refused:
    return Refused(f"it cannot run our code ({signal.strsignal(os.WSTOPSIG(status))})")
