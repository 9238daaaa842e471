"""Gives huge pages back beside the ticks, on a thread of its own, as long as nothing scans and memory is plenty."""

import resource
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol, runtime_checkable

from ksmtuned_py.door import Door
from ksmtuned_py.door.descriptors import begin
from ksmtuned_py.host import Host
from ksmtuned_py.model import Guest, HugeBack, Run, Snapshot
from ksmtuned_py.model.hugeplan import AGAIN_SECONDS, SHARE, Portion, Survey, rest_after
from ksmtuned_py.undo.hugeback import HugeWays, NotHuge, give_huge_back, huge_ways, planned, survey
from ksmtuned_py.units import human_bytes, human_seconds

CLOSE_SECONDS = 1.0
"""The wait for the end of a portion, which takes some 60 ms."""


@runtime_checkable
class Returner(Protocol):
    """A backend that gives huge pages back itself, since it knows where it has cut them."""

    def huge_back(self, above_bytes: int | None) -> HugeBack:
        """Have them given back while so much memory stays available; None = not now. Returns what it gave so far."""


Say = Callable[[str], None]
WaysOf = Callable[[int], HugeWays]
"""Makes the way of one round from the memory that has to stay available."""


class HugeRound:
    """One round over all guests."""

    def __init__(self, ways: HugeWays, guests: tuple[Guest, ...], say: Say) -> None:
        """Begin it where there can be one more thread."""
        self.done = HugeBack()
        self._called_off = threading.Event()
        self._ways = replace(ways, called_off=self._called_off.is_set)
        self._guests = guests
        self._say = say
        self._thread = threading.Thread(target=self._run, name="huge-pages", daemon=True)
        self._began = begin(self._thread)

    @property
    def running(self) -> bool:
        """Whether it is not over yet."""
        return self._began and self._thread.is_alive()

    @property
    def is_called_off(self) -> bool:
        """Whether nobody wants it any more."""
        return self._called_off.is_set()

    def call_off(self) -> None:
        """Have it end after the portion that it is at."""
        self._called_off.set()

    def wait(self, seconds: float) -> None:
        """Wait for its end."""
        if self._began:
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._all_guests()
        except Exception as error:  # whatever it is, the next tick tells it
            self._failed("giving back", str(error) or type(error).__name__)

    def _all_guests(self) -> None:
        surveys = {guest: seen for guest in self._guests if (seen := self._survey(guest)) is not None}
        most = planned(self._ways, surveys)
        for guest, seen in surveys.items():
            if seen.ranges(most) and not self.is_called_off:
                self._give_back(guest, most)

    def _survey(self, guest: Guest) -> Survey | None:
        if self.is_called_off:
            return None
        before = _helpers_seconds()
        try:
            return survey(self._ways, guest)
        except NotHuge as error:
            self._failed(guest.name, error.reason)
            return None
        finally:
            took = _helpers_seconds() - before
            self._called_off.wait(took / SHARE - took)  # also for the start of each helper, with many small guests

    def _give_back(self, guest: Guest, most: int) -> None:
        before, last = self.done, Portion()
        page_bytes = self._ways.host.backend.page_bytes
        try:
            for last in give_huge_back(self._ways, guest, most):
                paid_bytes = last.paid * page_bytes
                now = HugeBack(given=last.given, paid_bytes=paid_bytes, cpu_seconds=last.cpu_seconds)
                self.done = replace(before.plus(now), problem=before.problem)
            if last.problem and not self.is_called_off:
                self._failed(guest.name, last.problem)
        except NotHuge as error:
            self._failed(guest.name, error.reason)
        if last.given:
            paid, took = human_bytes(last.paid * page_bytes), human_seconds(last.cpu_seconds)
            self._say(f"{guest.name}: {last.given} huge pages are back for {paid} of merged memory, {took} of CPU")

    def _failed(self, name: str, reason: str) -> None:
        self.done = replace(self.done, problem=f"{name}: {reason}")


class HugeReturns:
    """Begins a round when there is reason to, and ends it at once when there is none any more."""

    def __init__(self, ways: WaysOf | None, say: Say, own: Returner | None = None) -> None:
        """Without `ways` nothing is ever given back. `say` hears what each guest got back.

        A backend that gives back itself is asked in place of the kernel.
        """
        self._ways = ways
        self._say = say
        self._own = own
        self._round: HugeRound | None = None
        self._told = HugeBack()
        self._rest_seconds = AGAIN_SECONDS
        self._not_before_seconds = 0.0
        self._was_in_vain = False
        """The last round gave nothing back, and nothing has scanned since."""

    @property
    def told(self) -> HugeBack:
        """What was given back since the daemon began."""
        return self._told.plus(self._round.done) if self._round is not None else self._told

    @property
    def running(self) -> bool:
        """Whether a round is not over yet."""
        return self._round is not None and self._round.running

    def consider(self, now: Snapshot, spare_bytes: int | None) -> HugeBack:
        """Begin or end, and return what was given back so far; never waits.

        It may take so much of the available memory; None = it is not wanted now.
        """
        if now.knobs.run == Run.MERGE and self._was_in_vain:
            # What ksmd splits now was whole when nothing was found.
            self._was_in_vain, self._rest_seconds, self._not_before_seconds = False, AGAIN_SECONDS, 0.0
        if self._own is not None:
            wanted = self._ways is not None and spare_bytes is not None and now.knobs.run == Run.STOP
            self._told = self._own.huge_back(now.memory.headroom_bytes - (spare_bytes or 0) if wanted else None)
            return self._told
        if spare_bytes is None or now.knobs.run == Run.MERGE:
            self.call_off()
        elif self._round is None:
            self._begin(now, spare_bytes)
        elif not self._round.running:
            self._end(now)
        return self.told

    def call_off(self) -> None:
        """End a round after the portion that it is at. What was given back stays so."""
        if self._round is not None:
            self._round.call_off()

    def close(self) -> None:
        """End a round, and wait for the end of its portion."""
        if self._round is not None:
            self._round.call_off()
            self._round.wait(CLOSE_SECONDS)

    def _begin(self, now: Snapshot, spare_bytes: int) -> None:
        due = now.clock.monotonic_seconds >= self._not_before_seconds
        if self._ways is not None and due and now.guests and spare_bytes > 0:
            ways = self._ways(now.memory.headroom_bytes - spare_bytes)
            self._round = HugeRound(ways, now.guests, self._say)

    def _end(self, now: Snapshot) -> None:
        assert self._round is not None
        gave, called_off = self._round.done.given > 0, self._round.is_called_off
        self._told, self._round = self.told, None
        if called_off:
            return
        self._was_in_vain = not gave
        self._rest_seconds = rest_after(self._rest_seconds, gave=gave)
        self._not_before_seconds = now.clock.monotonic_seconds + self._rest_seconds


def _helpers_seconds() -> float:
    """The CPU time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def returns_on(door: Door, host: Host, say: Say) -> HugeReturns:
    """Those of this machine; none on a captured tree, whose processes are others here."""
    own = host.backend if isinstance(host.backend, Returner) else None
    return HugeReturns(partial(huge_ways, door, host, share=SHARE) if door.root == "/" else None, say, own)
