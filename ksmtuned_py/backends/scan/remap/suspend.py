"""Guests that the kernel writes to on its own (io_uring, native AIO, vhost) are remapped while they are suspended.

Then QEMU has waited for all that was under way and begins nothing new: live migration relies on the same. Suspending
and resuming is done by the resumer, a process of its own that outlives this one.
"""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from statistics import median

from ksmtuned_py.backends.scan.channel import Channel, Closed, Message, pair
from ksmtuned_py.backends.scan.mappings import Mapping, are_still_there
from ksmtuned_py.backends.scan.process import Process, kernel_flags
from ksmtuned_py.backends.scan.refusal import Refused
from ksmtuned_py.backends.scan.remap.eligibility import kernel_writes
from ksmtuned_py.backends.scan.remap.session import hurry
from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door

_RESUMER = (sys.executable, "-m", "ksmtuned_py.backends.scan.remap.resumer")
_START_SECONDS = 10.0
"""For the resumer to start, to find the monitor and to suspend the guest."""
_SURE_SECONDS = 0.05
_OVER_SECONDS = 5.0
_REST = 9
"""Times as long as it was suspended a guest then runs at least, so it is suspended for a tenth of the time."""
_SHORT_REST = 1
"""The same while all pages are given back, which somebody has asked for."""
_REFUSED_SECONDS = 10.0
_PAUSE_SECONDS = 0.01
_ROOM = 0.25
"""Of the longest suspension: as long as a stop in it may take."""
_MOST_HOLDS = 20
"""Of a guest in one pass: the other guests have their turn, too."""
_IO_WORKER, _USER_WORKER = 0x10, 0x4000  # include/linux/sched.h: PF_IO_WORKER (5.12), PF_USER_WORKER (6.4)
Steps = Callable[[Process], Iterator[int]]
"""Prepares the remapping of a process at once, and then takes a stop for each of the pages that it yields."""


class NotSuspended(Refused):
    """It cannot be suspended now, or not for long enough."""


class Held(Process):
    """A guest while it is suspended."""

    def __init__(self, process: Process, door: Door, resumer: "Resumer") -> None:
        super().__init__(process.target, door)
        self._resumer = resumer

    def names(self, name: str) -> list[str]:
        """Without the threads that are the kernel's: they never run a program, and have nothing to do now."""
        found = super().names(name)
        return [each for each in found if not self._is_kernels(each)] if name == "task" else found

    def make_sure(self) -> None:
        """While all its threads stand still: raises Refused unless it is suspended, and stays so until they go on."""
        self._resumer.make_sure()
        if self._has_registered_buffers():
            raise Refused("its io_uring knows parts of its memory by their place (registered buffers)")

    def _has_registered_buffers(self) -> bool:
        rings = (
            number
            for number in self.names("fd")
            if os.readlink(f"fd/{number}", dir_fd=self.directory) == "anon_inode:[io_uring]"
        )
        return any("UserBufs:\t0\n" not in self.read_text(f"fdinfo/{number}") for number in rings)

    def _is_kernels(self, thread: str) -> bool:
        stat = self.read_text(f"task/{thread}/stat")
        flags = kernel_flags(stat)
        return bool(flags & _IO_WORKER or (flags & _USER_WORKER and "(vhost-" in stat))


def still_suspended(process: Process) -> bool:
    """Whether it is suspended by us, asked while its threads stand still; raises Refused when it was and is not."""
    if isinstance(process, Held):
        process.make_sure()
        return True
    return False


class Resumer:
    """The worker's end of a resumer."""

    def __init__(self, process: Process, libvirt_uri: str) -> None:
        ours, theirs = pair()
        target = process.target
        arguments = [str(theirs.fileno()), str(target.pid), str(target.start_ticks), libvirt_uri]
        with theirs:
            _start(arguments, [theirs.fileno()])
        self._channel = Channel(ours)
        self._messages: deque[Message] = deque()
        self._killed = False
        self._until = 0.0
        self.suspended_seconds = 0.0
        """For how long the last time."""

    @property
    def seconds_left(self) -> float:
        """Until the guest is resumed in any case."""
        return self._until - time.monotonic()

    @contextmanager
    def suspended(self, seconds: float) -> Iterator[None]:
        """The guest is suspended in the with block, at most for so long; raises NotSuspended."""
        self.suspended_seconds = self._until = 0.0
        self._send({"suspend_seconds": seconds})
        self._until = self._await("until", _START_SECONDS)
        try:
            yield
        finally:
            if not self.suspended_seconds:
                self._send({"resume": True})
                self._await("over", _OVER_SECONDS)

    def make_sure(self) -> None:
        """Raises Refused unless the guest was suspended all the time, and nobody has begun to resume it."""
        self._send({"sure": True})
        sure = self._await("sure", min(_SURE_SECONDS, self.seconds_left))
        if self.seconds_left <= 0:
            raise Refused("its suspension was over too soon")
        if not sure:
            raise NotSuspended("somebody else has resumed it")

    def close(self) -> None:
        """The resumer ends; what it has suspended it resumes first, and if it was killed, another one does."""
        self._channel.close()
        if self._killed:
            rescue()

    def _send(self, message: Message) -> None:
        with suppress(Closed):  # seen by whoever awaits the answer
            self._channel.send(message)

    def _await(self, key: str, seconds: float) -> float:
        """The answer of that name; raises Refused when the suspension was over before."""
        deadline = time.monotonic() + seconds
        while message := self._next(deadline):
            if "over" in message:
                self.suspended_seconds = message["over"]
            if key in message:
                return float(message[key])
            if "over" in message:
                break
            if "refused" in message:
                raise NotSuspended(message["refused"])
        if 0 < self._until <= time.monotonic() and key != "over":  # the resumer itself waits for QEMU now
            raise Refused("its suspension was over too soon")
        raise NotSuspended("the process that is to resume it does not answer")

    def _next(self, deadline: float) -> Message:
        """The next message; empty when there was none in time."""
        try:
            while not self._messages and (left := deadline - time.monotonic()) > 0:
                self._messages.extend(self._channel.receive(left))
        except Closed:
            self._killed = True
            raise NotSuspended("the process that was to resume it has been killed") from None
        return self._messages.popleft() if self._messages else {}


class Suspensions:
    """Which guests were suspended, for how long, and when each may be again."""

    def __init__(self, door: Door, settings: Scan, libvirt_uri: str) -> None:
        self._door = door
        self._settings = settings
        self._libvirt_uri = libvirt_uri
        self._not_before: dict[int, float] = {}
        self._refused: dict[int, tuple[float, NotSuspended]] = {}
        self.seconds: deque[float] = deque(maxlen=10_000)
        if settings.suspend_guests:
            rescue()

    def milliseconds(self) -> dict[str, float]:
        """How long guests were suspended at a time: median and longest; empty when none was."""
        if not self.seconds:
            return {}
        return {"suspended_p50": median(self.seconds) * 1000, "suspended_max": max(self.seconds) * 1000}

    def run(
        self, process: Process, steps: Steps, wanted: Iterable[Mapping], *, to_the_end: bool = False
    ) -> Iterator[int]:
        """Takes the steps, with the guest suspended where it has to be; yields pages. Raises Refused and Gone.

        `wanted` are the mappings that will be touched.
        """
        pid = process.target.pid
        if not kernel_writes(process.open_files(), process.mappings()):
            yield from steps(process)
            return
        until, refused = self._refused.get(pid, (0.0, NotSuspended("")))
        if time.monotonic() < until and not to_the_end:
            raise refused
        resumer = Resumer(process, self._libvirt_uri)
        try:
            with Held(process, self._door, resumer) as held:
                turn = partial(self._turn, resumer, held, wanted, steps(held))
                most, rest = (sys.maxsize, _SHORT_REST) if to_the_end else (_MOST_HOLDS, _REST)
                yield from self._in_turns(pid, resumer, turn, most, rest)
        except NotSuspended as error:
            self._refused[pid] = time.monotonic() + _REFUSED_SECONDS, error
            raise
        finally:
            resumer.close()

    def _in_turns(
        self, pid: int, resumer: Resumer, turn: Callable[[], tuple[int, bool]], most: int, rest: int
    ) -> Iterator[int]:
        """Never yields while the guest is suspended: whoever goes on with this may take his time."""
        for _ in range(most):
            while time.monotonic() < self._not_before.get(pid, 0.0):
                time.sleep(_PAUSE_SECONDS)
                yield 1
            try:
                pages, finished = turn()
            finally:
                if resumer.suspended_seconds:
                    self.seconds.append(resumer.suspended_seconds)
                self._not_before[pid] = time.monotonic() + rest * resumer.suspended_seconds
            yield max(1, pages)  # 0 would be the end of a pass
            if finished:
                return

    def _turn(self, resumer: Resumer, held: Held, wanted: Iterable[Mapping], work: Iterator[int]) -> tuple[int, bool]:
        """As much as fits into one suspension; and whether that was all."""
        room = self._settings.suspend_window_ms / 1000 * _ROOM
        pages, finished = 0, False
        with hurry(), resumer.suspended(self._settings.suspend_window_ms / 1000):
            if resumer.seconds_left < room:
                raise NotSuspended("its disks took too long to come to rest (suspend_window_ms)")
            if not are_still_there(wanted, held.settle()):
                raise Refused("its mappings have changed")
            for done in work:
                pages += done
                if resumer.seconds_left < room:
                    break
            else:
                finished = True
        return pages, finished


def rescue() -> None:
    """Guests that a killed resumer has left suspended are resumed, by a process that nobody waits for."""
    _start(["rescue"])


def _start(arguments: list[str], descriptors: Sequence[int] = ()) -> None:
    _started[:] = [one for one in _started if one.poll() is None]  # the ended ones are reaped by that
    _started.append(
        subprocess.Popen(
            [*_RESUMER, *arguments], pass_fds=descriptors, stdin=subprocess.DEVNULL, start_new_session=True
        )
    )


_started: list[subprocess.Popen[bytes]] = []
