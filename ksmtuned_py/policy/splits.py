"""What the splitting of huge pages gave back, which no counter of KSM's shows. Pure.

Since Linux 6.12 a split maps those parts of a huge page that are zero to the zero page (mm/migrate.c,
try_to_map_unused_to_zeropage), whatever use_zero_pages says. Available memory gains by that, and by much else. So three
witnesses have to agree, and the least of what they say counts: so much more memory is available than at the worst
moment, the guests are so much smaller than each was at most, and so many huge pages were split. What is merged by the
counters, or went to swap, is taken off. They are heard for the length of a boost, and what was counted once in it is
not counted again when a guest grows and shrinks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ksmtuned_py.model import GuestKey, Snapshot

TABLE_ENTRY_BYTES = 8
"""A huge page is at most what one page of such entries maps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnesses:
    """What is seen since a boost began."""

    since: Snapshot
    """When it did, without its guests."""
    most_resident_bytes: Mapping[GuestKey, int]
    """The most that each guest that may merge has had in memory."""
    least_available_bytes: int

    @classmethod
    def begin(cls, now: Snapshot) -> "Witnesses":
        """What is seen when a boost begins."""
        return cls(
            since=replace(now, guests=()),
            most_resident_bytes=_resident_bytes(now),
            least_available_bytes=_available_bytes(now),
        )

    def after(self, now: Snapshot) -> "Witnesses":
        """What is seen after one more look, without the guests that ended."""
        most = {key: max(size, self.most_resident_bytes.get(key, 0)) for key, size in _resident_bytes(now).items()}
        least = min(self.least_available_bytes, _available_bytes(now))
        return replace(self, most_resident_bytes=most, least_available_bytes=least)

    def freed_bytes(self, now: Snapshot) -> int:
        """What all of them say."""
        huge_page_bytes = now.page_bytes * now.page_bytes // TABLE_ENTRY_BYTES
        splits = (now.vmstat.thp_split_page or 0) - (self.since.vmstat.thp_split_page or 0)
        swapped = max(0, self.since.memory.swap_free_bytes - now.memory.swap_free_bytes)
        zeroed = max(0, _zero_bytes(now) - _zero_bytes(self.since))
        shrunk = sum(self.most_resident_bytes.values()) - sum(_resident_bytes(now).values()) - zeroed
        gained = _available_bytes(now) - self.least_available_bytes
        return max(0, min(splits * huge_page_bytes, shrunk - swapped, gained - swapped))


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """What was given back by splits so far."""

    freed_bytes: int = 0
    """What all boosts have freed."""
    boost_bytes: int = 0
    """What the boost under way has freed so far."""
    witnesses: Witnesses | None = None
    """None outside of boosts."""

    def after(self, now: Snapshot, *, boosting: bool) -> "Splits":
        """What is known after one more look."""
        if not boosting:
            return Splits(freed_bytes=self.freed_bytes)
        if self.witnesses is None:
            return replace(self, witnesses=Witnesses.begin(now))
        witnesses = self.witnesses.after(now)
        more = max(0, witnesses.freed_bytes(now) - self.boost_bytes)
        return Splits(freed_bytes=self.freed_bytes + more, boost_bytes=self.boost_bytes + more, witnesses=witnesses)


def _resident_bytes(now: Snapshot) -> dict[GuestKey, int]:
    return {guest.key: guest.rss_bytes for guest in now.guests if guest.may_merge}


def _available_bytes(now: Snapshot) -> int:
    """Without what the counters say is merged."""
    return now.memory.available_bytes - now.saved_bytes


def _zero_bytes(now: Snapshot) -> int:
    return max(0, now.counters.ksm_zero_pages or 0) * now.page_bytes
