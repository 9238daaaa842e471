"""Gives merged memory back, guest by guest from outside, and then with run=2 in a child process.

Before each stage, and while it goes on, the host and the guest's cgroup must have the room. A guest that does not fit
is left out, and the admin is told. It may take as long as it likes while it moves. It ends when room is lacking, at an
interrupt, or when nothing moves any more. It is never called where a watchdog waits for an answer.
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from ksmtuned_py.errors import FAILED, KsmtunedError, NoRoom, NoThread, NotUnmerged
from ksmtuned_py.host import Host
from ksmtuned_py.hypervisor.enforce import Job, Switch
from ksmtuned_py.model import Guest, Knobs, Run, Snapshot, Write, WriteStatus
from ksmtuned_py.model.room import all_lack, guest_lack, merged_bytes
from ksmtuned_py.undo.knobs import set_knobs
from ksmtuned_py.undo.unshare import PORTION_PAGES
from ksmtuned_py.undo.unsharing import STALL_SECONDS, NoAnswer, NotUnshared
from ksmtuned_py.units import human_bytes, human_seconds

Say = Callable[[str], None]
COMES_AGAIN = (
    "ksmd merges it again at its next passes, unless it is stopped: this guest has no monitor that libvirt reaches, "
    "so no rule can keep it out; start it with mem-merge=off for that"
)
TELL_SECONDS = 1.0
CHECK_SECONDS = 0.02
"""The time between two checks of the room.

The kernel copies 50 MiB in that time (0.4 s for a GiB, measured), a fifth of the reserve.
"""


@dataclass(eq=False)
class NotSwitched(KsmtunedError):
    """A guest could not be switched, or its memory not be given back."""

    guest: str
    reason: str
    exit_code = FAILED
    template = "guest {guest}: {reason}"


class Portions(Protocol):
    """Unshares one guest's pages in portions, as Unsharing does."""

    def merged_pages(self) -> int:
        """The number of pages that the guest shares; raises NotUnshared."""

    def go_on(self) -> tuple[int, int]:
        """Do one portion; raises NotUnshared.

        Returns its pages and how many are the guest's own now; (0, 0) at the end.
        """

    def close(self) -> None:
        """End the unsharing."""


@dataclass(frozen=True)
class Ways:
    """The ways to give memory back, and those who are told of it."""

    host: Host
    say: Say
    progress: Say
    """Hears about once a second how far it is."""
    unshare: Callable[[Guest], Portions] | None = None
    """Unshares from outside; None where the guests are not this kernel's processes, or not merged by it."""
    empty: Switch | None = None
    """Takes a guest out of merging by QEMU's monitor, and puts it in again; None without libvirt."""
    limit_bytes: Callable[[Guest], int | None] = lambda guest: guest.room_bytes
    """Tells the bytes that a guest's cgroups leave it now; None = no limit."""
    stall_seconds: float = STALL_SECONDS


def give_back(ways: Ways, seen: Snapshot | None = None) -> None:
    """Give everything back. ksmd is stopped then, with run=2, or with run=0 when it was cut short.

    The guests are those that were seen, or those of a look of its own.
    Raises NoRoom when something stays merged for want of room, and NotUnmerged when it was cut short.
    """
    if ways.host.dry:
        return
    set_knobs(ways.host, Knobs(run=Run.STOP))  # or what is given back would merge again
    now = seen or ways.host.observe()
    merged = {guest: merged_bytes(guest, now.page_bytes) for guest in now.guests}
    elsewhere_bytes = max(0, _merged_bytes(now) - sum(merged.values()))
    left = {
        guest: _empty(ways, guest, now.page_bytes)
        for guest in sorted(merged, key=lambda guest: merged[guest])
        if merged[guest]
    }
    host_bytes = elsewhere_bytes + sum(each.host_bytes for each in left.values())
    _give_back_left(ways, left, min(now.saved_bytes, host_bytes))


def give_back_guest(ways: Ways, guest: Guest, switch: Switch | None) -> int:
    """Give one guest its pages back while it runs. With a switch, keep it out of merging from then on.

    Returns the bytes that it had merged; raises NotSwitched, which says why it stays as it was.
    """
    snapshot = ways.host.observe()
    now = next((one for one in snapshot.guests if one.key == guest.key), None)
    if now is None:
        raise NotSwitched(guest.name, "it is gone")
    size_bytes = merged_bytes(now, snapshot.page_bytes)
    if problem := guest_lack(size_bytes, ways.host.memory(), ways.limit_bytes(now)):
        raise NotSwitched(guest.name, problem)
    ways.say(f"{guest.name}: {human_bytes(size_bytes)} to give back ...")
    try:
        unshared_bytes = unshare(ways, now, snapshot.page_bytes) if size_bytes else 0
    except (NoRoom, NotUnshared) as error:
        if switch is None or isinstance(error, NoRoom):
            raise NotSwitched(guest.name, str(error)) from error
        ways.say(f"{guest.name}: {error}; QEMU does it at once, and its guest stands still meanwhile")
    else:
        ways.say(f"{guest.name}: {human_bytes(unshared_bytes)} were shared with others, and are its own now")
    if switch is not None:
        ways.say(f"{guest.name}: {switch_and_wait(now, False, switch, snapshot.page_bytes, ways.progress)}")
    elif snapshot.knobs.run == Run.MERGE:
        ways.say(f"{guest.name}: {COMES_AGAIN}")
    return size_bytes


def unshare(ways: Ways, guest: Guest, page_bytes: int) -> int:
    """Unshare a guest's pages from outside, portion by portion, and return the bytes that are its own now.

    Raises NotUnshared where that cannot be done or does nothing, and NoRoom as soon as a portion has no room.
    """
    if ways.unshare is None:
        raise NotUnshared("its memory is not merged by this machine's kernel")
    passed = alone = 0
    told_seconds = -TELL_SECONDS
    with closing(ways.unshare(guest)) as portions:
        size_bytes = portions.merged_pages() * page_bytes
        _need_room(ways, guest, size_bytes)
        did = 1
        while did:
            _need_room(ways, guest, min(PORTION_PAGES * page_bytes, size_bytes - passed * page_bytes))
            did, become_its_own = portions.go_on()
            passed, alone = passed + did, alone + become_its_own
            if did and time.monotonic() - told_seconds > TELL_SECONDS:
                told_seconds = time.monotonic()
                ways.progress(f"{guest.name}: {human_bytes(passed * page_bytes)} of {human_bytes(size_bytes)} ...")
    if passed and not alone:
        raise NotUnshared("this kernel leaves pages shared that are only read (before Linux 5.19)")
    return alone * page_bytes


def switch_and_wait(guest: Guest, merge: bool, switch: Switch, page_bytes: int, say: Say) -> str:
    """Switch a guest, wait for it until its deadline, and return what was read back; raises NotSwitched."""
    try:
        job = Job(switch, guest, merge, page_bytes, time.monotonic())
    except NoThread as error:
        raise NotSwitched(guest.name, str(error)) from error
    try:
        while not job.wait(TELL_SECONDS):
            seconds = time.monotonic() - job.began_seconds
            if time.monotonic() > job.deadline_seconds:
                raise NotSwitched(guest.name, f"QEMU has not answered for {human_seconds(seconds)}")
            say(f"{guest.name}: {human_seconds(seconds)} ...")
    except KeyboardInterrupt:  # QEMU cannot be stopped half way, so we wait for it
        say(f"{guest.name}: ends when QEMU is done with it ...")
        job.wait(job.deadline_seconds - time.monotonic())
        raise
    if job.error:
        raise NotSwitched(guest.name, job.error)
    return job.done


@dataclass(frozen=True, slots=True)
class _Left:
    """The memory that copying a guest's remaining merged pages would take."""

    host_bytes: int
    """Taken from the host, for the pages that it still shares with others."""
    guest_bytes: int
    """Taken from its cgroup, also for pages that only it has left, but that are charged to another."""
    answers: bool = True


def _empty(ways: Ways, guest: Guest, page_bytes: int) -> _Left:
    """Give one guest's pages back, from outside or else by its monitor, and return what is left."""
    zero_bytes = max(0, guest.ksm.zero_pages) * page_bytes if guest.ksm else 0
    size_bytes = merged_bytes(guest, page_bytes)
    all_of_it = _Left(size_bytes, size_bytes)
    try:
        return _Left(zero_bytes, max(zero_bytes, size_bytes - unshare(ways, guest, page_bytes)))
    except NoRoom as error:
        ways.say(f"{guest.name} stays merged: {error.reason}")
        return all_of_it
    except NoAnswer as error:
        ways.say(f"{guest.name} stays merged: {error.reason}")
        return replace(all_of_it, answers=False)
    except NotUnshared as error:
        problem = str(error)
    if ways.empty is not None and guest.libvirt_age_seconds is not None:
        try:
            _need_room(ways, guest, size_bytes)
            switch_and_wait(guest, False, ways.empty, page_bytes, ways.progress)
            return _Left(0, 0)
        except (NoRoom, NotSwitched) as error:
            problem = str(error)
    if ways.unshare is not None:
        ways.say(f"{guest.name} is left to the last stage: {problem}")
    return all_of_it


def _give_back_left(ways: Ways, left: dict[Guest, _Left], left_bytes: int) -> None:
    """Give back what is still merged, by run=2 in a child; raises NoRoom or NotUnmerged.

    Only this sets ksmd's counters right. A guest that does not answer would hold it up with ksmd's mutex taken.
    """
    if silent := [guest.name for guest, each in left.items() if not each.answers]:
        raise NotUnmerged(f"run=2 would wait for guest {silent[0]}, which does not answer")
    fresh = {replace(guest, room_bytes=ways.limit_bytes(guest)): each.guest_bytes for guest, each in left.items()}
    if problem := all_lack(left_bytes, fresh, ways.host.memory()):
        raise NoRoom(problem)
    limited: list[Guest | None] = [guest for guest in fresh if guest.room_bytes is not None]
    ended = False
    try:
        _wait(ways, limited)
        ended = True
    finally:
        if not ended:
            ways.host.write(Write(knob="run", old=Run.UNMERGE, new=Run.STOP))  # ends the child wherever it is
            set_knobs(ways.host, Knobs(run=Run.STOP))
    counters = ways.host.backend.counters()
    if merged := counters.pages_shared + counters.pages_sharing:  # a page that only one guest has left is merged, too
        raise NotUnmerged(f"{human_bytes(merged * ways.host.backend.page_bytes)} stay merged")


def _wait(ways: Ways, limited: list[Guest | None]) -> None:
    """Wait for run=2 to end, as long as it moves and there is room; raises NoRoom or NotUnmerged.

    The room must suffice for what is done between two checks.
    """
    backend = ways.host.backend
    write = Write(knob="run", old=Run.STOP, new=Run.UNMERGE)
    moved: tuple[int, float] | None = None
    moved_seconds, told_seconds = time.monotonic(), -TELL_SECONDS
    while (result := ways.host.write(write)).status is WriteStatus.PENDING:
        for guest in limited or [None]:
            _need_room(ways, guest, 1)
        now_seconds = time.monotonic()
        now = (backend.counters().saved_pages, backend.unmerge_seconds())
        if now != moved:
            moved, moved_seconds = now, now_seconds
        if now_seconds - moved_seconds > ways.stall_seconds:
            raise NotUnmerged(f"nothing has moved for {human_seconds(ways.stall_seconds)}")
        if now_seconds - told_seconds > TELL_SECONDS and now_seconds - moved_seconds < TELL_SECONDS:
            told_seconds = now_seconds
            ways.progress(f"{human_bytes(now[0] * backend.page_bytes)} left ...")
        time.sleep(CHECK_SECONDS)
    if result.status in (WriteStatus.REFUSED, WriteStatus.LOST):
        raise NotUnmerged(result.detail)


def _need_room(ways: Ways, guest: Guest | None, needed_bytes: int) -> None:
    """Raise NoRoom when the host's memory or the guest's limit leaves too little. Reads nothing else."""
    limit = ways.limit_bytes(guest) if guest is not None else None
    if problem := guest_lack(needed_bytes, ways.host.memory(), limit):
        raise NoRoom(problem)


def _merged_bytes(now: Snapshot) -> int:
    """The merged bytes by the kernel's counters, which lag behind when a process has ended."""
    counters = now.counters
    return (counters.pages_shared + counters.pages_sharing + max(0, counters.ksm_zero_pages or 0)) * now.page_bytes
