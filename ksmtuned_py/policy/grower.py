"""The guest that has grown most lately, and what it may still take. Pure.

A guest that starts, or whose balloon is let go, takes its memory fast, and then it has it. So such a fall ends where
the guest's mappings do, which are an upper bound. Only one guest is excused so: guests that come one after the other
are a trend.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ksmtuned_py.model import GuestKey, Snapshot
from ksmtuned_py.units import MIB

REST_SECONDS = 60.0
"""A guest that has not grown for so long has done so."""
GROWTH_MIN_BYTES = 16 * MIB
"""Less is no growth."""


class Growth(NamedTuple):
    """How one guest grows."""

    began_bytes: int
    """What it had when it began to."""
    seen_bytes: int
    """What it had when it was last seen to."""
    seen_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Grower:
    """The guest that has grown most, and what is needed to tell."""

    growths: Mapping[GuestKey, Growth] = field(default_factory=dict)
    grown_bytes: int = 0
    more_bytes: int = 0
    """What it may still take: all its mappings, of which it may never use some."""

    def after(self, now: Snapshot) -> "Grower":
        """The growing guests after one more look."""
        seconds, is_first = now.clock.monotonic_seconds, not self.growths
        growths: dict[GuestKey, Growth] = {}
        most = more = 0
        for guest in now.guests:
            size = guest.rss_bytes
            growth = self.growths.get(guest.key) or Growth(size if is_first else 0, 0, seconds)
            if size >= growth.seen_bytes + GROWTH_MIN_BYTES:
                growth = growth._replace(seen_bytes=size, seen_seconds=seconds)
            elif seconds - growth.seen_seconds >= REST_SECONDS or size < growth.began_bytes:
                growth = Growth(size, size, seconds)
            growths[guest.key] = growth
            if size - growth.began_bytes > most and guest.virtual_bytes:
                most, more = size - growth.began_bytes, max(0, guest.virtual_bytes - size)
        return Grower(growths=growths, grown_bytes=most, more_bytes=more)
