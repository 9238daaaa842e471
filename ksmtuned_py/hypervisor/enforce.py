"""Switches running guests as the rules want: a few at a time, with room, and never on the tick."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from ksmtuned_py.door.descriptors import begin
from ksmtuned_py.errors import KsmtunedError, NoThread
from ksmtuned_py.guests.ledger import Ledger
from ksmtuned_py.model import Guest, GuestKey, Snapshot
from ksmtuned_py.model.record import Field, Priority, Record
from ksmtuned_py.model.room import guest_lack, merged_bytes
from ksmtuned_py.units import GIB, human_seconds

Switch = Callable[[Guest, bool], str]
"""Switches a guest and returns what was read back, as a sentence; raises KsmtunedError or OSError."""

DEADLINE_SECONDS = 30.0
DEADLINE_SECONDS_PER_GIB = 2.0
"""Added to the deadline for each merged GiB, which takes 0.4 s to give back (measured on 6.18)."""
RETRY_SECONDS = 60.0
RECHECK_SECONDS = 600.0
"""The time after which a guest is switched off again. Memory that is plugged in meanwhile merges until then."""
LANES = 4
"""The most switches at once. One whose QEMU takes longer than others do does not count."""
LANE_SECONDS = 2.0
"""A switch is slow after this, plus the time to give memory back. It takes 50 ms, and ksmd waits 10 s at most."""
LOST_LIMIT = 16
"""The most switches that are left waiting for silent QEMUs. At that number no other is begun."""
PATIENCE_SECONDS = 10.0
"""The wait for libvirt, which may know a guest only a moment after its process is seen."""


class Job:
    """One switch on its way, on a thread of its own."""

    def __init__(
        self,
        switch: Switch,
        guest: Guest,
        merge: bool,
        page_bytes: int,
        now_seconds: float,
        then: Callable[["Job"], None] = lambda _: None,
    ) -> None:
        """Begin the switch, and call `then` on its thread at the end; raises NoThread.

        The deadline grows with what the guest has merged.
        """
        self.guest = guest
        self.merge = merge
        self.began_seconds = now_seconds
        self.needs_bytes = 0 if merge else merged_bytes(guest, page_bytes)
        seconds = DEADLINE_SECONDS_PER_GIB * self.needs_bytes / GIB
        self.slow_seconds = now_seconds + LANE_SECONDS + seconds
        """The time from which on another switch may take its place (monotonic)."""
        self.deadline_seconds = now_seconds + DEADLINE_SECONDS + seconds
        self.done = ""
        self.error: str | None = None
        self._switch = switch
        self._then = then
        self._thread = threading.Thread(target=self._run, name="switch", daemon=True)
        if not begin(self._thread):
            raise NoThread

    def wait(self, timeout_seconds: float) -> bool:
        """Wait, and return whether the switch ended within the time."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.done = self._switch(self.guest, self.merge)
        except Exception as error:  # whatever it is, the next switch may begin, and this one is tried again
            self.error = str(error) or type(error).__name__
        self._then(self)


@dataclass(frozen=True, slots=True)
class _Case:
    """The state of switching one guest."""

    merge: bool | None = None
    """The last switch, in or out of merging; None = not by us."""
    since_seconds: float = 0.0
    not_before_seconds: float = 0.0
    recheck_seconds: float = 0.0
    told: str = ""


class Enforcer:
    """Switches the guests in each snapshot that are not as the rules want. When a switch ends, the next begins."""

    def __init__(
        self,
        switch: Switch,
        tell: Callable[[Record], None],
        ledger: Ledger | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over what an earlier enforcer has switched off, by its ledger."""
        self._switch = switch
        self._tell = tell
        self._ledger = ledger
        self._clock = clock
        self._lock = threading.RLock()  # each switch ends on a thread of its own
        self._known_off = self._read_ledger()
        self._unmet = self._known_off
        """Guests of the ledger that were not seen yet."""
        self._cases: dict[GuestKey, _Case] = {}
        self._queue: list[tuple[Guest, bool]] = []
        self._running: dict[GuestKey, Job] = {}
        self._lost: dict[GuestKey, Job] = {}
        self._seen: Snapshot | None = None
        self._spent_bytes = 0
        """Memory given back since that snapshot, or on the way."""
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopped = False

    @property
    def switched_off(self) -> frozenset[GuestKey]:
        """The guests whose memory was taken out of merging."""
        with self._lock:
            return self._known_off

    def fileno(self) -> int:
        """A descriptor, readable when each guest that needed a first switch has been switched, or failed."""
        return self._wake_read

    def drain(self) -> bool:
        """Empty the descriptor, and return whether it was readable."""
        with suppress(BlockingIOError):
            return bool(os.read(self._wake_read, 4096))
        return False

    def stop(self) -> None:
        """Begin no more switches, and wake nobody. One on its way is left to itself."""
        with self._lock:
            self._stopped = True
            self._queue = []

    def close(self) -> None:
        """Stop, and close the descriptor."""
        self.stop()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def consider(self, snapshot: Snapshot) -> None:
        """Put the switches that are due in the queue; never waits."""
        now = snapshot.clock.monotonic_seconds
        with self._lock:
            self._cases = {
                guest.key: self._cases.get(guest.key)
                or _Case(since_seconds=now, merge=False if guest.key in self._known_off else None)
                for guest in snapshot.guests
            }
            self._unmet -= self._cases.keys()
            self._give_up(now)
            self._remember()
            self._seen = snapshot
            self._spent_bytes = sum(job.needs_bytes for job in self._running.values())
            self._queue = list(self._due(snapshot.guests, now))
            self._begin()

    def _due(self, guests: tuple[Guest, ...], now: float) -> Iterator[tuple[Guest, bool]]:
        """The switches that are due: first off, those with the least to give back first, then on, then one repeated."""
        wanted = [(guest, merge) for guest in guests if (merge := self._wanted(guest, now)) is not None]
        first = [(guest, merge) for guest, merge in wanted if merge != self._cases[guest.key].merge]
        yield from sorted(first, key=lambda pair: (pair[1], _merged_pages(pair[0])))
        again = [(guest, merge) for guest, merge in wanted if merge == self._cases[guest.key].merge]
        yield from sorted(again, key=lambda pair: self._cases[pair[0].key].recheck_seconds)[:1]

    def _wanted(self, guest: Guest, now: float) -> bool | None:
        """The switch that the guest needs now, in (True) or out of merging; None when it needs none."""
        case = self._cases[guest.key]
        wanted = True if guest.merge is None and case.merge is False else guest.merge
        if wanted is None or now < case.not_before_seconds or guest.key in self._running or guest.key in self._lost:
            return None
        if wanted == case.merge and (wanted or now < case.recheck_seconds):
            return None
        if not wanted and guest.ksm is not None and guest.ksm.mergeable is False:
            return None  # none of its memory merges anyway
        late = now >= case.since_seconds + PATIENCE_SECONDS
        return wanted if late or guest.has_monitor else None

    def _begin(self) -> None:
        """Begin as many switches as may run at once. The others begin when one of these ends, or is slow."""
        while self._queue and self._has_lane() and self._seen:
            guest, merge = self._queue.pop(0)
            if problem := self._obstacle(guest, merge, self._seen):
                self._complain(guest, f"not switched {_word(merge)}: {problem}")
                continue
            try:
                job = Job(self._switch, guest, merge, self._seen.page_bytes, self._clock(), self._ended)
            except NoThread as error:
                self._complain(guest, f"not switched {_word(merge)}: {error}")
                return
            self._running[guest.key] = job
            self._spent_bytes += job.needs_bytes

    def _has_lane(self) -> bool:
        now = self._clock()
        busy = sum(now < job.slow_seconds for job in self._running.values())
        return busy < LANES and len(self._running) + len(self._lost) < LANES + LOST_LIMIT

    def _obstacle(self, guest: Guest, merge: bool, seen: Snapshot) -> str | None:
        if not guest.has_monitor:
            return "no domain of libvirt's is known for it, through which QEMU's monitor is reached"
        if merge:
            return "it was started with nosharepages" if "nosharepages" in guest.obstacles else None
        left = replace(seen.memory, available_bytes=max(0, seen.memory.available_bytes - self._spent_bytes))
        return guest_lack(merged_bytes(guest, seen.page_bytes), left, guest.room_bytes)

    def _give_up(self, now: float) -> None:
        """Count switches that are past their deadline as lost, so that others can begin."""
        for key, job in list(self._running.items()):
            if now >= job.deadline_seconds:
                self._lost[key] = self._running.pop(key)
                self._fail(job, now, f"no answer within {human_seconds(now - job.began_seconds)}")

    def _ended(self, job: Job) -> None:
        """Note a switch that has ended, on its own thread and however late, and begin the next."""
        with self._lock:
            now, key = self._clock(), job.guest.key
            self._running.pop(key, None)
            self._lost.pop(key, None)
            is_first = self._is_first(job)
            if job.error:
                self._fail(job, now, job.error)
            else:
                self._succeed(job, now)
            self._begin()
            if is_first and not any(map(self._is_first, self._running.values())) and not self._stopped:
                with suppress(BlockingIOError):  # a full pipe wakes as well
                    os.write(self._wake_write, b"s")

    def _is_first(self, job: Job) -> bool:
        case = self._cases.get(job.guest.key)
        return case is not None and case.merge != job.merge

    def _succeed(self, job: Job, now: float) -> None:
        case = self._cases.get(job.guest.key)
        if case is None:
            return  # the guest ended meanwhile
        if case.merge != job.merge:
            reason = job.guest.merge_reason or "nothing keeps it out any more"
            self._audit(Priority.INFO, job.guest, f"switched {_word(job.merge)}: {reason}; {job.done}")
        self._cases[job.guest.key] = replace(case, merge=job.merge, recheck_seconds=now + RECHECK_SECONDS, told="")
        self._remember()

    def _read_ledger(self) -> frozenset[GuestKey]:
        try:
            return self._ledger.read() if self._ledger else frozenset()
        except (KsmtunedError, OSError) as error:
            self._tell(Record(Priority.WARNING, f"who was switched off before is not known: {error}"))
            return frozenset()

    def _remember(self) -> None:
        off = self._unmet | {key for key, case in self._cases.items() if case.merge is False}
        if off == self._known_off:
            return
        self._known_off = off
        if self._ledger:
            try:
                self._ledger.write(off)
            except OSError as error:
                self._tell(Record(Priority.WARNING, f"a restart will not know which guests were switched off: {error}"))

    def _fail(self, job: Job, now: float, problem: str) -> None:
        if case := self._cases.get(job.guest.key):
            self._cases[job.guest.key] = replace(case, not_before_seconds=now + RETRY_SECONDS)
            self._complain(job.guest, f"not switched {_word(job.merge)}: {problem}")

    def _complain(self, guest: Guest, sentence: str) -> None:
        """Tell the admin why a guest was not switched, once for each new reason."""
        case = self._cases[guest.key]
        if sentence != case.told:
            self._cases[guest.key] = replace(case, told=sentence)
            self._audit(Priority.WARNING, guest, sentence)

    def _audit(self, priority: Priority, guest: Guest, sentence: str) -> None:
        fields: dict[str, Field] = {
            "KSMTUNED_GUEST": guest.name,
            "KSMTUNED_UUID": guest.uuid,
            "KSMTUNED_PID": guest.pid,
            "KSMTUNED_GROUP": guest.group,
        }
        self._tell(Record(priority, f"guest {guest.name} {sentence}", fields))


def _merged_pages(guest: Guest) -> int:
    return guest.ksm.merging_pages + guest.ksm.zero_pages if guest.ksm else 0


def _word(merge: bool) -> str:
    return "on" if merge else "off"
