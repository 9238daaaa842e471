"""The resumer: a process of its own that suspends one guest for moments and lets it run on, whoever else is killed.

It resumes the guest when it is told to, when the scan worker has ended, or when the time is over, whichever is first.
The worker relies on the guest being suspended only in its stops by ptrace, and only when the time was not over yet
once all threads stood still. So it cannot be wrong: QEMU carries a `cont` out on one of these threads, and whatever
arrives while they stand still is carried out when they have gone on, after the last mapping was exchanged.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from ksmtuned_py.backends.scan.channel import Channel, Closed, Message, inherited
from ksmtuned_py.backends.scan.remap.holdnote import Suspendable, noted, settle
from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError, LeftSuspended
from ksmtuned_py.guests import qmp
from ksmtuned_py.guests.libvirtsuspend import domain_monitor, domain_number
from ksmtuned_py.guests.parse import parse_stat
from ksmtuned_py.guests.programs import guest_uuid

_URGENT = -10
_AGAIN_SECONDS = 0.1
_LATE_SECONDS = 3.0
_RESCUE_SECONDS = 10.0
_NEVER_FIRST = "-1000"  # oom_score_adj: the OOM killer takes all others before


class Monitor(Protocol):
    """By which a guest is suspended."""

    def obstacle(self) -> str:
        """Why it must not be suspended now; ''."""

    def stop(self) -> None:
        """Suspends it."""

    def undisturbed(self) -> bool:
        """Whether nobody else has touched it since."""

    def resume(self) -> None:
        """Lets it run on, if it is still suspended by us."""


class _Ended(Exception):
    """The guest has."""


@contextmanager
def _monitor(guest: Suspendable) -> Iterator[Monitor]:
    """libvirt's domains through libvirt, which has the monitor; raises KsmtunedError and _Ended."""
    door = Door()
    try:
        directory = door.hold(f"proc/{guest.pid}")
    except FileNotFoundError:
        raise _Ended from None
    try:
        try:
            same = parse_stat(door.read("stat", at=directory)).start_ticks == guest.start_ticks
            words = door.read("cmdline", at=directory).split("\0")
        except ProcessLookupError:
            raise _Ended from None
        if not same or not words[0]:
            raise _Ended
        number = domain_number(" ".join(words))
        if number is not None and guest.libvirt_uri:
            with domain_monitor(guest.libvirt_uri, guest_uuid("qemu", words), number) as found:
                yield found
        else:
            with qmp.monitor(door.path(f"proc/self/fd/{directory}"), guest.pid, words) as other:
                yield other
    finally:
        os.close(directory)


def serve(channel: Channel, guest: Suspendable) -> None:
    """Suspends the guest whenever it is asked to, until the worker has ended."""
    with suppress(Closed):
        while True:
            for message in channel.receive(3600.0):
                if "suspend_seconds" in message:
                    _answer(channel, guest, message["suspend_seconds"])


def _answer(channel: Channel, guest: Suspendable, seconds: float) -> None:
    try:
        with noted(guest):
            answer = _suspend(channel, guest, seconds)
    except KsmtunedError as error:
        answer = {"refused": str(error)}
    channel.send(answer)


def _suspend(channel: Channel, guest: Suspendable, seconds: float) -> Message:
    """Suspends it, lets it run on in any case, and tells for how long it was suspended, or why it was not."""
    owed = False
    try:
        with _monitor(guest) as monitor:
            if obstacle := monitor.obstacle():
                return {"refused": obstacle}
            owed, begun = True, time.monotonic()
            monitor.stop()  # which takes as long as its disks do: nothing could be done about it meanwhile
            try:
                _hold(channel, monitor, begun + seconds)
            finally:
                monitor.resume()
            owed = False
            return {"over": time.monotonic() - begun}
    except KsmtunedError as error:
        return {"refused": str(error)}
    except _Ended:
        return {"refused": "it has ended"}
    finally:
        while owed and not _surely_resumed(guest):  # by another connection: a monitor has one client at a time
            time.sleep(_AGAIN_SECONDS)


def _hold(channel: Channel, monitor: Monitor, until: float) -> None:
    """Until the worker has done all it wanted, or was killed, or the time is over."""
    with suppress(Closed):
        channel.send({"until": until})
        while time.monotonic() < until and _go_on(channel, monitor, until):
            pass


def _go_on(channel: Channel, monitor: Monitor, until: float) -> bool:
    """Answers the worker's next question; False when it has done all it wanted. Raises Closed when it has ended."""
    for message in channel.receive(max(0.0, until - time.monotonic())):
        if "resume" in message:
            return False
        if "sure" in message:
            channel.send({"sure": monitor.undisturbed() and time.monotonic() < until})
    return True


def _surely_resumed(guest: Suspendable) -> bool:
    """Whether it runs for some time: a libvirtd that was asked, or was killed, may suspend it late, or say so late."""
    until = time.monotonic() + _LATE_SECONDS
    while time.monotonic() < until:
        try:
            with _monitor(guest) as monitor:
                monitor.resume()
        except _Ended:
            return True
        except Exception:  # whatever it was, it is tried again: a guest that stays suspended would be worse
            return False
        time.sleep(_AGAIN_SECONDS)
    return True


def rescue() -> None:
    """Lets all guests run on that were left suspended; raises LeftSuspended."""
    until = time.monotonic() + _RESCUE_SECONDS
    while left := settle(_surely_resumed):
        if time.monotonic() > until:
            raise LeftSuspended(", ".join(f"PID {name.partition('-')[0]}" for name in left))
        time.sleep(_AGAIN_SECONDS)


def main(words: list[str]) -> None:
    """`rescue`, or the end of a channel and the guest."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends as soon as nobody needs it
    with suppress(OSError):  # not allowed: then like anybody else
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, _URGENT)
        Door().write("proc/self/oom_score_adj", _NEVER_FIRST)
    if words == ["rescue"]:
        try:
            rescue()
        except LeftSuspended as error:
            sys.exit(str(error))
    else:
        serve(inherited(int(words[0])), Suspendable(int(words[1]), int(words[2]), words[3]))


if __name__ == "__main__":
    main(sys.argv[1:])
