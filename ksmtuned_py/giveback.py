"""Giving merged memory back because somebody asked for it: in stages, with a look before each, and told as it goes."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ksmtuned_py.enforce import Job, Switch
from ksmtuned_py.errors import FAILED, KsmtunedError, NoRoom, NotUnmerged
from ksmtuned_py.host import Host
from ksmtuned_py.model import Guest, Knobs, Snapshot, Write, WriteStatus
from ksmtuned_py.policy.room import could_find_bytes, guest_lack, merged_bytes
from ksmtuned_py.restore import settle
from ksmtuned_py.units import human_bytes, human_seconds

Say = Callable[[str], None]
TELL_SECONDS = 1.0
LOOK_SECONDS = 0.05


@dataclass(eq=False)
class NotSwitched(KsmtunedError):
    """One guest stays as it was."""

    guest: str
    reason: str
    exit_code = FAILED
    template = "guest {guest}: {reason}"


def give_back_guest(host: Host, guest: Guest, switch: Switch, say: Say) -> int:
    """Switch one guest off, after a look whether there is room; the bytes it had merged; NotSwitched says why not."""
    snapshot = host.observe()
    now = next((one for one in snapshot.guests if one.key == guest.key), None)
    if now is None:
        raise NotSwitched(guest.name, "it is gone")
    if problem := guest_lack(merged_bytes(now, snapshot.page_bytes), snapshot.memory, now.room_bytes):
        raise NotSwitched(guest.name, problem)
    size_bytes = merged_bytes(now, snapshot.page_bytes)
    say(f"{guest.name}: {human_bytes(size_bytes)} to give back ...")
    say(f"{guest.name}: {switch_and_wait(now, False, switch, snapshot.page_bytes, say)}")
    return size_bytes


def switch_and_wait(guest: Guest, merge: bool, switch: Switch, page_bytes: int, say: Say) -> str:
    """Switch a guest and wait for it, to its deadline; what was read back; raises NotSwitched."""
    job = Job(switch, guest, merge, page_bytes, time.monotonic())
    try:
        while not job.wait(TELL_SECONDS):
            seconds = time.monotonic() - job.began_seconds
            if time.monotonic() > job.deadline_seconds:
                raise NotSwitched(guest.name, f"QEMU has not answered for {human_seconds(seconds)}")
            say(f"{guest.name}: {human_seconds(seconds)} ...")
    except KeyboardInterrupt:  # QEMU cannot be stopped half way: not left before it is as it was meant to be
        say(f"{guest.name}: ends when QEMU is done with it ...")
        job.wait(job.deadline_seconds - time.monotonic())
        raise
    if job.error:
        raise NotSwitched(guest.name, job.error)
    return job.done


def give_back_all(host: Host, empty: Switch, say: Say) -> None:
    """Give everything back and leave ksmd stopped: libvirt's guests one by one, then whatever is left at once (run=2).

    `empty` takes a guest out of merging and puts it in again. NoRoom before a stage that the host could not bear;
    NotUnmerged when one was cut short.
    """
    settle(host, Knobs(run=0))  # else what is given back would merge again
    given_bytes = 0
    for guest in _in_stages(host.observe()):
        try:
            given_bytes += give_back_guest(host, guest, empty, say)
        except NotSwitched as error:
            say(f"left to the last stage: {error}")
    _rest(host, given_bytes, say)


def _in_stages(snapshot: Snapshot) -> list[Guest]:
    """Those that can be done one at a time, the smallest first."""
    able = [guest for guest in snapshot.guests if guest.libvirt_age_seconds is not None]
    merged = [guest for guest in able if merged_bytes(guest, snapshot.page_bytes)]
    return sorted(merged, key=lambda guest: merged_bytes(guest, snapshot.page_bytes))


def _rest(host: Host, given_bytes: int, say: Say) -> None:
    """run=2, in a child that is ended when memory runs short, or on Ctrl-C; ksmd's counters come right only now."""
    snapshot = host.observe()
    left_bytes, found_bytes = snapshot.saved_bytes - given_bytes, could_find_bytes(snapshot.memory)
    if left_bytes > found_bytes:
        raise NoRoom(human_bytes(left_bytes), human_bytes(found_bytes))
    write = Write(knob="run", old=0, new=2)
    told_seconds = time.monotonic()
    try:
        while (result := host.apply((write,)).results[0]).status is WriteStatus.PENDING:
            if not could_find_bytes(host.observe().memory):
                raise NotUnmerged("the host's memory ran short")
            if time.monotonic() - told_seconds > TELL_SECONDS:
                told_seconds = time.monotonic()
                say(f"{human_bytes(host.observe().saved_bytes)} left ...")
            time.sleep(LOOK_SECONDS)
    finally:
        host.backend.close()  # ends the child where it is; harmless when it has ended
        settle(host, Knobs(run=0))
    if result.status in (WriteStatus.REFUSED, WriteStatus.LOST):
        raise NotUnmerged(result.detail)
