"""What the host's memory was wanted for, moment by moment: a record that stays small however long it grows. Pure.

A guest's own memory is what it does not share. It rises when the guest grows, and when it writes to merged pages. Of
each step of time only the worst moment is kept, with what every guest had then. So it stays visible who wants memory
at the same time as others. When the record is full its steps become twice as long, up to an hour. Then the oldest goes.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from sys import intern
from typing import NamedTuple

from ksmtuned_py.model import Guest, Snapshot
from ksmtuned_py.model.room import CGROUP_RESERVE_BYTES, could_find_bytes

MOST_MOMENTS = 1024
STEPS = tuple(60.0 * 2**doublings for doublings in range(7))
"""How long a step may be, in seconds: at last 64 minutes, of which 1024 are 45 days."""
MOST_GUESTS = 200
"""The largest guests are kept one by one, and all others among the rest of the host."""


class Moment(NamedTuple):
    """How things stood at one moment."""

    seconds: float
    """Seconds since boot: a clock that is set moves nothing, and no guest outlives a boot."""
    demand: Mapping[str, int]
    """Bytes taken on the host, with what is in swap, under ''; and those taken in each slice, by its cgroup."""
    guests: tuple[str, ...]
    """The keys of the guests, and in the same order their own memory in bytes."""
    own: "array[int]"
    fullness: float
    """The fullest of its places, 1 for one that has nothing left."""

    def own_of(self) -> dict[str, int]:
        """Each guest's own memory in bytes, by its key."""
        return dict(zip(self.guests, self.own, strict=True))


@dataclass(eq=False)
class DemandRecord:
    """The worst moments so far, the oldest first."""

    step_seconds: float = STEPS[0]
    moments: list[Moment] = field(default_factory=list)

    @property
    def span_seconds(self) -> float:
        """The time that it covers."""
        if not self.moments:
            return 0.0
        return self.moments[-1].seconds - self.moments[0].seconds + self.step_seconds

    @property
    def apart_seconds(self) -> float:
        """The time from one moment to the next, as it usually is."""
        between = [after.seconds - before.seconds for before, after in pairwise(self.moments)]
        return max(self.step_seconds, median(between)) if between else self.step_seconds

    @property
    def seen_seconds(self) -> float:
        """The time that it covers, without its gaps."""
        return min(self.span_seconds, len(self.moments) * self.apart_seconds)

    def look(self, now: Snapshot) -> None:
        """Add the moment of one look at the host. Most are not the worst of their step, and those are not even made."""
        if self._wants(self.moments, now.clock.monotonic_seconds, _fullness(now, demands(now))):
            self.add(moment(now))

    def add(self, now: Moment) -> None:
        """Add one more moment. Where others are later, all of them are of another boot, and forgotten."""
        if self.moments and self.moments[-1].seconds > now.seconds:
            self.moments.clear()
            self.step_seconds = STEPS[0]
        self._keep(self.moments, now)
        if len(self.moments) <= MOST_MOMENTS:
            return
        if self.step_seconds >= STEPS[-1]:
            del self.moments[0]
            return
        self.step_seconds *= 2
        kept: list[Moment] = []
        for moment in self.moments:
            self._keep(kept, moment)
        self.moments = kept

    def _keep(self, moments: list[Moment], now: Moment) -> None:
        """Add a moment, or keep the worse of two of the same step."""
        if self._begins(moments, now.seconds):
            same = bool(moments) and moments[-1].guests == now.guests
            moments.append(now._replace(guests=moments[-1].guests) if same else now)
        elif self._wants(moments, now.seconds, now.fullness):
            moments[-1] = now

    def _begins(self, moments: list[Moment], seconds: float) -> bool:
        """Whether another step begins with this moment. One that lies before the last is of another boot."""
        if not moments or seconds < moments[-1].seconds:
            return True
        return moments[-1].seconds // self.step_seconds != seconds // self.step_seconds

    def _wants(self, moments: list[Moment], seconds: float, fullness: float) -> bool:
        """Whether a moment as full as this would be kept."""
        return self._begins(moments, seconds) or fullness >= moments[-1].fullness


def moment(now: Snapshot) -> Moment:
    """The moment of one look at the host."""
    known = sorted(now.guests, key=lambda guest: guest.rss_bytes, reverse=True)[:MOST_GUESTS]
    known.sort(key=lambda guest: guest.key)
    shares = own_bytes(now)
    demand = demands(now)
    return Moment(
        seconds=now.clock.monotonic_seconds,
        demand=demand,
        guests=tuple(key_of(guest) for guest in known),
        own=array("Q", [shares[key_of(guest)] for guest in known]),
        fullness=_fullness(now, demand),
    )


def demands(now: Snapshot) -> dict[str, int]:
    """The bytes taken on the host, under '', and in each slice, by its cgroup."""
    memory = now.memory
    taken = memory.total_bytes - memory.headroom_bytes + memory.swap_total_bytes - memory.swap_free_bytes
    slices = {guest.slice for guest in now.guests if guest.slice}
    return {"": max(0, taken)} | {one.cgroup: one.limit_bytes - one.available_bytes for one in slices}


def limits(now: Snapshot) -> dict[str, int]:
    """The bytes beyond which each place has nothing left to give."""
    return _limits(now, demands(now))


def _limits(now: Snapshot, demand: Mapping[str, int]) -> dict[str, int]:
    slices = {guest.slice for guest in now.guests if guest.slice}
    slice_limits = {one.cgroup: one.limit_bytes - CGROUP_RESERVE_BYTES for one in slices}
    return {"": demand[""] + could_find_bytes(now.memory)} | slice_limits


def _fullness(now: Snapshot, demand: Mapping[str, int]) -> float:
    return max(demand[place] / max(1, limit) for place, limit in _limits(now, demand).items())


def key_of(guest: Guest) -> str:
    """The key of one process, and of no other, as a text, which is kept once for all moments."""
    return intern(f"{guest.pid}:{guest.start_ticks}")


def own_bytes(now: Snapshot) -> dict[str, int]:
    """What each guest has for itself. Where the kernel keeps no account of each, all savings count by size."""
    resident = sum(guest.rss_bytes for guest in now.guests)
    share = max(0.0, 1 - now.saved_bytes / resident) if resident else 1.0
    return {
        key_of(guest): (
            max(0, guest.rss_bytes - guest.ksm.merging_pages * now.page_bytes)
            if guest.ksm
            else round(guest.rss_bytes * share)
        )
        for guest in now.guests
    }


def landing_bytes(guest: Guest, page_bytes: int) -> int:
    """What a guest takes where it lands, before anything of it is shared: pages of zeros are in no resident size."""
    zero = max(0, guest.ksm.zero_pages) * page_bytes if guest.ksm else 0
    return guest.rss_bytes + zero
