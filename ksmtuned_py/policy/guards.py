"""Guards: they run last, and may only lower what the rest wants, or stop it. Pure.

A guard that stops the scan must not judge by a number that only a scan corrects: it would never let go. ksmd alone
takes broken copies and the pages of ended guests out of the kernel's counters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from ksmtuned_py.config import Config, Guards
from ksmtuned_py.config.types import window_minutes
from ksmtuned_py.model import Snapshot, Verdict
from ksmtuned_py.model.room import could_find_bytes, lack, room_bytes
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import human_bytes, human_percent, human_seconds

TRICKLE = 0.002
"""The share of one core where scanning goes on only so that the counters become true: 64 GiB in some hours."""


class Ceiling(Enum):
    """The most that a guard allows when it fired."""

    NO_WRITE = auto()
    """The knobs are left to whoever else writes them."""
    GIVE_BACK = auto()
    """Nothing scans, and merged pages are given back."""
    STOP = auto()
    """Nothing scans, and merged pages stay merged."""
    TRICKLE = auto()
    """Scanning at 0.2 % of a core, which only keeps the counters true."""
    NO_BOOST = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """The word of one guard."""

    verdict: Verdict
    ceiling: Ceiling


def guards(now: Snapshot, trend: Trend, config: Config) -> Iterator[Guard]:
    """All guards, the strictest first, so that the first that fired is the one to obey."""
    settings = config.adaptive.guards
    yield foreign_writer(now, trend)
    yield paused(now)
    yield _inhibited(now, settings)
    yield _unswitched(now)
    yield _no_guests(now)
    yield _debt(now, settings)
    yield _net_loss(now, trend, settings)
    yield _copy_on_write_storm(now, trend)
    yield _busy(now, trend, config)


def foreign_writer(now: Snapshot, trend: Trend) -> Guard:
    """Hands off while somebody else writes the knobs: every policy obeys this one."""
    left = trend.foreign.until_seconds - now.clock.monotonic_seconds
    fired = trend.foreign.times > 0 and left > 0
    sentence = "nobody else writes the knobs"
    if fired:
        sentence = f"somebody else writes the knobs ({trend.foreign.sentence}): hands off for {human_seconds(left)}"
    return Guard(verdict=Verdict(rule="foreign_writer", fired=fired, sentence=sentence), ceiling=Ceiling.NO_WRITE)


def paused(now: Snapshot) -> Guard:
    """No scanning while somebody asked for a pause: every policy obeys this one, too."""
    sentence = "nobody asked for a pause"
    if now.pause is not None:
        sentence = f"paused for {human_seconds(now.pause_left_seconds)} more ({now.pause.reason})"
    verdict = Verdict(rule="paused", fired=now.pause is not None, sentence=sentence)
    return Guard(verdict=verdict, ceiling=Ceiling.STOP)


def _inhibited(now: Snapshot, settings: Guards) -> Guard:
    minute = now.clock.local_minute_of_day
    inside = [window for window in settings.inhibit if _within(minute, *window_minutes(window))]
    sentence = f"no scanning from {inside[0]} (adaptive.guards.inhibit)" if inside else "no inhibit window is open"
    return Guard(verdict=Verdict(rule="inhibit", fired=bool(inside), sentence=sentence), ceiling=Ceiling.STOP)


def _within(minute: int, begin: int, end: int) -> bool:
    return begin <= minute < end if begin <= end else minute >= begin or minute < end


def _unswitched(now: Snapshot) -> Guard:
    """What has merged once was shared: a guest that is to be kept out is switched off before any pass comes by."""
    waiting = [guest.name for guest in now.guests if guest.awaits_switch and now.backend == "kernel"]
    sentence = "no guest waits to be switched off"
    if waiting:
        more = f" and {len(waiting) - 1} more are" if len(waiting) > 1 else " is"
        sentence = f"{waiting[0]}{more} switched off first, as a rule wants it"
    return Guard(verdict=Verdict(rule="unswitched", fired=bool(waiting), sentence=sentence), ceiling=Ceiling.STOP)


def _no_guests(now: Snapshot) -> Guard:
    """A process that ends leaves its bookkeeping behind, and only a scanning ksmd clears it away."""
    may, fired = sum(guest.may_merge for guest in now.guests), not now.guests
    left = now.counters.candidate_pages - now.counters.pages_shared
    sentence = f"{may} of {len(now.guests)} guest{'s' if len(now.guests) > 1 else ''} may merge"
    if fired:
        tracked = f"; {left} pages are tracked still, of ended ones or of some that nobody knows"
        sentence = "no guest runs" + (tracked if left else "")
    return Guard(
        verdict=Verdict(rule="no_guests", fired=fired, sentence=sentence),
        ceiling=Ceiling.NO_BOOST if left else Ceiling.STOP,
    )


def _debt(now: Snapshot, settings: Guards) -> Guard:
    debt, could_find = _debt_bytes(now), could_find_bytes(now.memory)
    limit = could_find * settings.max_debt_percent / 100
    fired = settings.max_debt_percent > 0 and debt > limit
    sentence = f"the debt is {human_bytes(debt)}, the host could find {human_bytes(could_find)}"
    if settings.max_debt_percent > 0:
        sentence += f" and {settings.max_debt_percent:g} % of that are allowed"
    return Guard(verdict=Verdict(rule="debt", fired=fired, sentence=sentence), ceiling=Ceiling.TRICKLE)


def _debt_bytes(now: Snapshot) -> int:
    """What the guests that run could ask back: the counters have the pages of ended ones, too, until ksmd comes by."""
    accounts = [guest.ksm for guest in now.guests]
    pages = sum(account.merging_pages + max(0, account.zero_pages) for account in accounts if account)
    return now.saved_bytes if None in accounts else min(now.saved_bytes, pages * now.page_bytes)


def _net_loss(now: Snapshot, trend: Trend, settings: Guards) -> Guard:
    until = trend.given_up.until_seconds
    profit = human_bytes(now.profit_bytes)
    if until is None:
        verdict = Verdict(rule="net_loss", fired=False, sentence=f"merging's net profit is {profit}")
        return Guard(verdict=verdict, ceiling=Ceiling.STOP)
    left = human_seconds(max(0.0, until - now.clock.monotonic_seconds))
    sentence = f"merging cost more memory than it saved for {settings.net_loss_passes} passes"
    verdict = Verdict(rule="net_loss", fired=True, sentence=f"{sentence}; next try in {left}, or at news")
    # Each guest's own limit is minded on the way, as is the room that is left at each step.
    has_room = now.giving_back or (room_bytes(now.memory) > 0 and not lack(now.saved_bytes, now.memory))
    return Guard(verdict=verdict, ceiling=Ceiling.GIVE_BACK if has_room else Ceiling.STOP)


def _copy_on_write_storm(now: Snapshot, trend: Trend) -> Guard:
    rate = trend.copy_on_write.pages_per_minute
    fired = now.clock.monotonic_seconds < trend.copy_on_write.storm_until_seconds
    merged = max(1, now.counters.pages_sharing + now.counters.pages_shared)
    sentence = f"guests write to {rate:.0f} merged pages a minute, {human_percent(rate / merged)} of all"
    return Guard(verdict=Verdict(rule="cow_storm", fired=fired, sentence=sentence), ceiling=Ceiling.NO_BOOST)


def _busy(now: Snapshot, trend: Trend, config: Config) -> Guard:
    """A boost would take the guests' CPUs, and nobody needs the memory yet."""
    precedence, left = trend.precedence, trend.held_back_seconds(now, config)
    cores = precedence.spare.cores
    sentence = "it is not known what CPUs have to spare" if cores is None else f"CPUs have {cores:.3g} cores to spare"
    if left and precedence.counts_first(now):
        sentence = "what CPUs have to spare is counted before a boost begins"
    elif left:
        sentence = (
            f"guests go first while CPUs are busy, for {human_seconds(left)} at least: "
            f"they had {precedence.busy_cores:.2g} cores to spare, and a boost takes {precedence.boost_cores:.2g}"
        )
    verdict = Verdict(rule="busy", fired=left > 0 and trend.boosting, sentence=sentence)
    return Guard(verdict=verdict, ceiling=Ceiling.NO_BOOST)
