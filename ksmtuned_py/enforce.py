"""What the rules want of running guests is done: one guest at a time, with room, and never on the tick."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.model import Guest, Snapshot
from ksmtuned_py.policy.room import guest_lack, merged_bytes
from ksmtuned_py.publish.journal import Field, Priority, Record
from ksmtuned_py.units import GIB, human_seconds

Key = tuple[int, int]
Switch = Callable[[Guest, bool], str]
"""Switches a guest and says what was read back; raises KsmtunedError or OSError."""

DEADLINE_SECONDS = 30.0
DEADLINE_SECONDS_PER_GIB = 2.0
"""Giving a merged GiB back takes 0.4 s (measured on 6.18)."""
RETRY_SECONDS = 60.0
RECHECK_SECONDS = 600.0
"""Memory that was plugged in since the guest was switched off merges until then."""
STUCK_LIMIT = 4
"""Switches that may be left waiting for a QEMU that does not answer; then no other is begun."""
PATIENCE_SECONDS = 10.0
"""libvirt may know a guest only a moment after its process is seen."""


class Job:
    """One switch on its way, in a thread."""

    def __init__(self, switch: Switch, guest: Guest, merge: bool, page_bytes: int, now_seconds: float) -> None:
        """Begin it; the deadline grows with what the guest has merged."""
        self.guest = guest
        self.merge = merge
        self.began_seconds = now_seconds
        patience = DEADLINE_SECONDS + DEADLINE_SECONDS_PER_GIB * merged_bytes(guest, page_bytes) / GIB
        self.deadline_seconds = now_seconds + patience
        self.done = ""
        self.error = ""
        self._switch = switch
        self._thread = threading.Thread(target=self._run, name="switch", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it has not come back yet."""
        return self._thread.is_alive()

    def wait(self, timeout_seconds: float) -> bool:
        """Whether it came back within the time."""
        self._thread.join(timeout_seconds)
        return not self.running

    def _run(self) -> None:
        try:
            self.done = self._switch(self.guest, self.merge)
        except (KsmtunedError, OSError) as error:
            self.error = str(error)


@dataclass(frozen=True, slots=True)
class _Case:
    """What is known of one guest."""

    merge: bool | None = None
    """How it was switched last; None = not by us."""
    since_seconds: float = 0.0
    not_before_seconds: float = 0.0
    recheck_seconds: float = 0.0
    told: str = ""


class Enforcer:
    """Looks at each snapshot and switches what is not as the rules want it."""

    def __init__(self, switch: Switch, tell: Callable[[Record], None]) -> None:
        self._switch = switch
        self._tell = tell
        self._cases: dict[Key, _Case] = {}
        self._job: Job | None = None
        self._stuck: list[Job] = []

    @property
    def switched_off(self) -> frozenset[Key]:
        """The guests whose memory was taken out of merging."""
        return frozenset(key for key, case in self._cases.items() if case.merge is False)

    def consider(self, snapshot: Snapshot) -> None:
        """Take in what came of the last switch, and begin the next; never waits."""
        now = snapshot.clock.monotonic_seconds
        self._cases = {guest.key: self._cases.get(guest.key, _Case(since_seconds=now)) for guest in snapshot.guests}
        self._stuck = [job for job in self._stuck if job.running]
        self._collect(now)
        if self._job is None and len(self._stuck) < STUCK_LIMIT:
            self._begin(snapshot)

    def _begin(self, snapshot: Snapshot) -> None:
        now = snapshot.clock.monotonic_seconds
        for guest, merge in self._due(snapshot.guests, now):
            problem = self._obstacle(guest, snapshot, merge)
            if not problem:
                self._job = Job(self._switch, guest, merge, snapshot.page_bytes, now)
                return
            self._complain(guest, f"not switched {_word(merge)}: {problem}")

    def _due(self, guests: tuple[Guest, ...], now: float) -> Iterator[tuple[Guest, bool]]:
        """Who is to be switched, those that may not merge first."""
        for guest in sorted(guests, key=lambda guest: guest.merge is not False):
            case = self._cases[guest.key]
            wanted = True if guest.merge is None and case.merge is False else guest.merge
            if wanted is None or now < case.not_before_seconds:
                continue
            if wanted == case.merge and (wanted or now < case.recheck_seconds):
                continue
            if not wanted and guest.ksm is not None and guest.ksm.mergeable is False:
                continue  # none of it merges anyway
            if guest.libvirt_age_seconds is None and now < case.since_seconds + PATIENCE_SECONDS:
                continue
            yield guest, wanted

    def _obstacle(self, guest: Guest, snapshot: Snapshot, merge: bool) -> str:
        if guest.libvirt_age_seconds is None:
            return "it is no domain of libvirt's, through which QEMU's monitor is reached"
        if merge:
            return "its domain says nosharepages" if "nosharepages" in guest.obstacles else ""
        return guest_lack(merged_bytes(guest, snapshot.page_bytes), snapshot.memory, guest.room_bytes)

    def _collect(self, now: float) -> None:
        job = self._job
        if job is None or (job.running and now < job.deadline_seconds):
            return
        self._job = None
        if job.guest.key not in self._cases:
            return  # it ended meanwhile
        if job.running:
            self._stuck.append(job)
            self._fail(job, now, f"no answer within {human_seconds(now - job.began_seconds)}")
        elif job.error:
            self._fail(job, now, job.error)
        else:
            self._succeed(job, now)

    def _succeed(self, job: Job, now: float) -> None:
        case = self._cases[job.guest.key]
        if case.merge != job.merge:
            reason = job.guest.merge_reason or "nothing keeps it out any more"
            self._audit(Priority.INFO, job.guest, f"switched {_word(job.merge)}: {reason}; {job.done}")
        self._cases[job.guest.key] = replace(case, merge=job.merge, recheck_seconds=now + RECHECK_SECONDS, told="")

    def _fail(self, job: Job, now: float, problem: str) -> None:
        case = self._cases[job.guest.key]
        self._cases[job.guest.key] = replace(case, not_before_seconds=now + RETRY_SECONDS)
        self._complain(job.guest, f"not switched {_word(job.merge)}: {problem}")

    def _complain(self, guest: Guest, sentence: str) -> None:
        """Once for each new reason."""
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


def _word(merge: bool) -> str:
    return "on" if merge else "off"
