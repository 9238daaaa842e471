"""Comfort: with so much available nobody would notice that memory is managed; and what merging would cost. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from ksmtuned_py.config import Need as Thresholds
from ksmtuned_py.model import Guest, Slice, Snapshot

COMFORT_LEAST_PERCENT = 10.0
"""The least comfort. The most is where memory becomes wary: 30 % of 2 TiB is room for a rack of guests."""
HUGE_SHARE = 0.1
"""The share of the guests' memory: with less of it in huge pages, merging costs them nothing but copies."""
SLICE_SHARE = 0.1
"""The share of the guests' memory: a slice with less of it does not decide for all of them."""


@dataclass(frozen=True, slots=True)
class Supply:
    """Where guests take memory from: the host, or a slice with a limit of its own."""

    name: str
    """'' is the host."""
    size_bytes: int
    available_bytes: int

    def beyond_bytes(self, percent: float) -> int:
        """What is available beyond such a share of it; less than 0 when that is not."""
        return self.available_bytes - ceil(self.size_bytes * percent / 100)


def tightest(now: Snapshot, percent: float) -> Supply:
    """The supply that has the least beyond such a share of it."""
    return min(_supplies(now), key=lambda supply: supply.beyond_bytes(percent))


def comfort_bytes(supply: Supply, largest_bytes: int, lead_bytes: float, thresholds: Thresholds) -> int:
    """What has to be available.

    There is room for the largest guest, and for what is taken while merging is on its way, before memory is short.
    """
    wanted = supply.size_bytes * thresholds.short_enter_percent / 100 + largest_bytes + lead_bytes
    most = supply.size_bytes * thresholds.wary_enter_percent / 100
    least = min(most, supply.size_bytes * COMFORT_LEAST_PERCENT / 100)
    return ceil(min(max(wanted, least), most))


def largest_bytes(now: Snapshot) -> int:
    """What the largest guest has."""
    return max((guest.rss_bytes for guest in now.guests), default=0)


@dataclass(frozen=True, slots=True)
class Stake:
    """What merging would cost the guests. Nobody can have ksmd scan some of them only."""

    huge_bytes: int
    """What a pass would split, as far as it is known: of guests that nobody has looked at yet maybe all."""
    is_much: bool
    is_sure: bool
    """All guests have been looked at."""


NO_STAKE = Stake(0, is_much=False, is_sure=False)


def stake(now: Snapshot) -> Stake:
    """What is at stake now, which is no more than the host has in huge pages."""
    guests = [guest for guest in now.guests if guest.may_merge]
    resident_bytes = sum(guest.rss_bytes for guest in guests)
    size_bytes = min(now.memory.anon_huge_bytes, sum(map(_huge_bytes, guests)))
    return Stake(
        size_bytes,
        is_much=resident_bytes > 0 and size_bytes >= resident_bytes * HUGE_SHARE,
        is_sure=all(guest.huge_bytes is not None for guest in guests),
    )


def _huge_bytes(guest: Guest) -> int:
    return guest.rss_bytes if guest.huge_bytes is None else min(guest.huge_bytes, guest.rss_bytes)


def _supplies(now: Snapshot) -> Iterator[Supply]:
    """The host, and each slice that has much of the guests' memory."""
    yield Supply("", now.memory.base_bytes, now.memory.headroom_bytes)
    sizes: dict[Slice, int] = {}
    for guest in now.guests:
        if guest.slice is not None:
            sizes[guest.slice] = sizes.get(guest.slice, 0) + guest.rss_bytes
    least_bytes = SLICE_SHARE * sum(guest.rss_bytes for guest in now.guests) if sizes else 0
    for each, size_bytes in sizes.items():
        if size_bytes > 0 and size_bytes >= least_bytes:
            yield Supply(each.cgroup.rpartition("/")[2], each.limit_bytes, each.available_bytes)
