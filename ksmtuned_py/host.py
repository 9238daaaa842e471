"""The one handle on the machine. observe() tells how it is, and apply() carries out a plan."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from ksmtuned_py.backends.base import Backend
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.model import (
    ASIDE,
    Clock,
    ForeignWrite,
    Guest,
    KnobName,
    Knobs,
    KnobValue,
    Memory,
    Outcome,
    Pause,
    Pressure,
    Run,
    Snapshot,
    Vmstat,
    Wake,
    Write,
    WriteResult,
    WriteStatus,
)

T = TypeVar("T")
PauseAt = Callable[[Clock], Pause | None]
"""Tells the pause that is in force at a time."""


class Senses(Protocol):
    """Reads the host, apart from the backend that merges."""

    cpus: int

    def memory(self) -> Memory:
        """The host's memory now."""

    def pressure(self) -> Pressure | None:
        """Memory pressure now; None where the kernel does not say."""

    def cpu_pressure(self) -> Pressure | None:
        """Pressure on CPUs now; None where the kernel does not say."""

    def idle_seconds(self) -> float | None:
        """The seconds for which CPUs were idle since boot, of all together; None where that is not known."""

    def vmstat(self) -> Vmstat:
        """The kernel's events since boot."""

    def guests(self, now_seconds: float) -> tuple[Guest, ...]:
        """The guests, whose memory may merge; `now_seconds` is monotonic."""

    def suspects(self) -> tuple[str, ...]:
        """Running programs that are known to write KSM's knobs."""

    def problems(self) -> tuple[str, ...]:
        """Sentences on why the last look at the guests was not complete."""


class Background(Protocol):
    """Gives all memory back beside the ticks, in place of a bare run=2."""

    @property
    def on_its_way(self) -> bool:
        """Whether it has begun, and nobody has asked for its result yet."""

    def go_on(self, write: Write, seen: Snapshot) -> WriteResult:
        """Begin, or tell how far it is; never waits."""

    def call_off(self) -> None:
        """End wherever it is; what was given back stays so."""


def system_clock() -> Clock:
    """The clocks of the system, read now."""
    unix_seconds = time.time()
    time.tzset()  # or another time zone of the host counts only after a restart
    local = time.localtime(unix_seconds)
    return Clock(
        monotonic_seconds=time.monotonic(),
        unix_seconds=unix_seconds,
        local_minute_of_day=local.tm_hour * 60 + local.tm_min,
    )


def no_pause(_now: Clock) -> None:
    """Stand in for the pause where nobody can ask for one."""


class Host:
    """The machine: its senses, and the backend that merges. When dry it only watches, and writes end as DRY."""

    def __init__(
        self,
        backend: Backend,
        senses: Senses,
        clock: Callable[[], Clock] = system_clock,
        pause: PauseAt = no_pause,
        giving_back: Background | None = None,
        *,
        dry: bool = False,
    ) -> None:
        """Without `giving_back`, a plan's run=2 is left to the backend."""
        self.backend = backend
        self._dry = dry
        self._senses = senses
        self._clock = clock
        self._pause = pause
        self._giving_back = giving_back
        self._seen: Snapshot | None = None
        self._written: dict[KnobName, KnobValue] = {}
        self._taken: set[KnobName] = set()

    @property
    def dry(self) -> bool:
        """Whether the host is only watched."""
        return self._dry

    def steer(self) -> None:
        """Carry plans out from now on."""
        self._dry = False

    def watch(self) -> None:
        """Only watch from now on. Knobs that we wrote are no longer ours, so no change of them counts as foreign."""
        self.abort()
        self._dry = True
        self._written.clear()
        self._taken.clear()

    def own(self, found: Knobs) -> None:
        """Count a change of those outside KSM's directory as somebody else's, though none is written yet."""
        self._written |= {name: value for name, value in found.items() if name in ASIDE}

    def observe(self, woken_by: frozenset[Wake] = frozenset()) -> Snapshot:
        """A snapshot of the host, with the knobs that somebody else wrote since the last one; raises as look() does."""
        snapshot = self.look()
        foreign = self._foreign(snapshot.knobs)
        suspects = self._senses.suspects() if foreign else ()
        return replace(snapshot, foreign=foreign, suspects=suspects, woken_by=woken_by)

    def taken(self) -> frozenset[KnobName]:
        """The knobs that somebody else wrote after us, which are no longer ours to put back; raises as look() does."""
        self._foreign(self.backend.knobs())
        return frozenset(self._taken)

    def look(self) -> Snapshot:
        """A snapshot of the host; raises a KsmtunedError for what must be readable and is not."""
        problems: list[str] = []
        clock, knobs = self._clock(), self.backend.knobs()
        if self._gives_back and knobs.run == Run.UNMERGE:
            knobs = replace(knobs, run=Run.STOP)  # it is in force when all is given back
        self._seen = Snapshot(
            clock=clock,
            backend=self.backend.name,
            page_bytes=self.backend.page_bytes,
            cpus=self._senses.cpus,
            knobs=knobs,
            giving_back=self._gives_back,
            counters=self.backend.counters(),
            memory=self._senses.memory(),
            pressure=_optional(self._senses.pressure, problems),
            cpu_pressure=_optional(self._senses.cpu_pressure, problems),
            idle_seconds=_optional(self._senses.idle_seconds, problems),
            vmstat=_optional(self._senses.vmstat, problems) or Vmstat(),
            scanner_cpu_seconds=_optional(self.backend.scanner_cpu_seconds, problems),
            scanner_waited_seconds=_optional(self.backend.scanner_waited_seconds, problems),
            guests=self._senses.guests(clock.monotonic_seconds),
            pause=_optional(lambda: self._pause(clock), problems),
            problems=(*dict.fromkeys(problems), *self._senses.problems()),  # two figures may be of one file
        )
        return self._seen

    def memory(self) -> Memory:
        """The host's memory alone, for whoever reads it often. It takes less than 0.1 ms, whatever the guests do."""
        return self._senses.memory()

    def apply(self, writes: tuple[Write, ...]) -> Outcome:
        """Carry out the plan in its order. It stops at a write that did not end well, and the next tick plans anew.

        Only the knobs outside KSM's directory stop nothing: without the right to them merging is still steered.
        A plan without run=2 ends the giving back of memory, for nobody wants it any more.
        """
        if self._gives_back and not any(map(_unmerges, writes)):
            self.abort()
        results = []
        for write in writes:
            results.append(self._give_back(write) if _unmerges(write) else self.write(write))
            if results[-1].status not in (WriteStatus.OK, WriteStatus.DRY) and write.knob not in ASIDE:
                break
        return Outcome(results=tuple(results))

    def seconds_since(self, snapshot: Snapshot) -> float:
        """Seconds since the snapshot was begun."""
        return self._clock().monotonic_seconds - snapshot.clock.monotonic_seconds

    def abort(self) -> None:
        """End the giving back of memory wherever it is; what was given back stays so."""
        if self._giving_back is not None:
            self._giving_back.call_off()  # first, or it would begin anew what the backend ends
        self.backend.abort()

    def close(self) -> None:
        """Let go of the machine."""
        self.backend.close()

    def write(self, write: Write) -> WriteResult:
        """Carry out one write here and now."""
        if self._dry:
            return WriteResult(write=write, status=WriteStatus.DRY)
        return self._noted(self.backend.write(write))

    def _give_back(self, write: Write) -> WriteResult:
        if self._giving_back is None or self._seen is None or self._dry:
            return self.write(write)
        return self._noted(self._giving_back.go_on(write, self._seen))

    @property
    def _gives_back(self) -> bool:
        return self._giving_back is not None and self._giving_back.on_its_way

    def _noted(self, result: WriteResult) -> WriteResult:
        """The result, after noting which knob is ours now."""
        write = result.write
        if result.status is WriteStatus.OK:
            self._written[write.knob] = write.new
            self._taken.discard(write.knob)
            if write.knob == "advisor_mode":
                self._written.pop("pages_to_scan", None)  # the kernel resets this knob with the mode
        elif write.knob not in ASIDE:  # those are as they were
            self._written.pop(write.knob, None)
        return result

    def _foreign(self, knobs: Knobs) -> tuple[ForeignWrite, ...]:
        """The knobs whose value is not what we wrote. Each is told once, and is somebody else's from then on."""
        found = tuple(
            ForeignWrite(knob=name, ours=ours, seen=seen)
            for name, ours in self._written.items()
            if (seen := knobs.get(name)) is not None and seen != ours
        )
        for write in found:
            del self._written[write.knob]
            self._taken.add(write.knob)
        return found


def _unmerges(write: Write) -> bool:
    return write.knob == "run" and write.new == Run.UNMERGE


def _optional(read: Callable[[], T | None], problems: list[str]) -> T | None:
    """Read a sensor that the daemon can do without. A failure becomes a sentence in `problems`, and None."""
    try:
        return read()
    except KsmtunedError as error:
        problems.append(str(error))
        return None
