"""News: reasons to think that there is memory which nobody has tried to merge yet. Pure.

Theory of operation
===================
Scanning memory costs CPU, so ksmd works hard only for a reason. There are five, in the table REASONS: a guest
arrived, much is unmerged that usually is not, it is time for another try after a loss, memory became scarce, or the
guests' memory grew. At each tick the first that holds is the news. It opens a boost (boost.py), or joins the open one.

There are two kinds of pass. A thorough one skips nothing old, so that pages that nobody shared meet their new equals.
It is dear where there is much memory. There, new memory gets a quick pass first, with smart_scan: new pages are not
skipped, and find each other, and all that is merged already. What that leaves unmerged may be worth a thorough one.

Each reason remembers what it brought. When a boost is over and was not worth its CPU, its reasons are not heard for as
long as it took, the next time for twice as long, and so on, up to an hour. One that was worth it makes them as good as
new. What a reason has to tell adds up while it is not heard. And a boost that stopped paying is not made longer by what
has made it already.

Only guests that may merge are of interest. A guest asks for merging a moment after its start, and arrives when it does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ksmtuned_py.model import GuestKey, Snapshot
from ksmtuned_py.policy.boost import NO_BOOST, WHOLE_PASSES, Boost
from ksmtuned_py.policy.prospect import Prospect
from ksmtuned_py.policy.record import FRUITLESS_MAX_SECONDS, NewsKind, NewsRecord
from ksmtuned_py.policy.usual import NOT_SEEN, Usual
from ksmtuned_py.units import human_bytes, human_seconds

DEAR_CPU_SECONDS = 5.0
"""Two thorough passes that take longer than this are not for every guest that comes: from 4 to 10 GiB of guests on."""
MOST_SHARE = 0.45
"""About half of all memory: a twin is never quite as large as the guest that was there before."""
ASKING_SECONDS = 5.0
"""A program that became a guest's has asked for merging by then, or never will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """The latest news, its boost, and what is needed to notice the next."""

    number: int = 0
    """Counts the news."""
    sentence: str = ""
    seconds: float = float("-inf")
    """When it came (monotonic)."""
    boost: Boost = NO_BOOST
    kinds: frozenset[NewsKind] = frozenset()
    """Why there is this boost."""
    records: Mapping[NewsKind, NewsRecord] = field(default_factory=dict)
    usual: Usual = NOT_SEEN
    guests: Mapping[GuestKey, int] = field(default_factory=dict)
    """How many passes were done when each was first seen."""
    gone_bytes: float = 0.0
    """What guests that ended had merged; ksmd takes it out of the counters in the pass under way."""
    asking_until_seconds: float = float("-inf")
    """A guest has just begun, and may still ask for merging."""
    seen_bytes: Mapping[GuestKey, int] = field(default_factory=dict)
    """The memory of each guest that may merge, at the last news or the least since: what was scanned since then."""

    def record(self, kind: NewsKind) -> NewsRecord:
        """What this kind brought so far."""
        return self.records.get(kind, NewsRecord())

    def had_merged(self, key: GuestKey, passes_done: int) -> bool:
        """Whether its pages could merge before the pass under way: it takes two whole ones after its first.

        What starts and ends all day long was never merged, and is no gain.
        """
        return passes_done - self.guests.get(key, passes_done) > WHOLE_PASSES

    def hears(self, kind: NewsKind, seconds: float) -> bool:
        """Whether news of this kind would be one now."""
        stale = self.boost.open and kind in self.kinds and self.boost.unpaid_passes >= WHOLE_PASSES
        return seconds >= self.record(kind).deaf_until_seconds and not stale


NO_NEWS = News()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that a reason may go by."""

    now: Snapshot
    past: News
    prospect: Prospect
    bytes_now: Mapping[GuestKey, int]
    """The memory of each guest that may merge."""

    @property
    def arrived(self) -> frozenset[GuestKey]:
        """Guests that no news has counted yet."""
        return frozenset(self.bytes_now) - frozenset(self.past.seen_bytes)

    @property
    def growth_bytes(self) -> int:
        """What the guests have taken since the last news, each for itself, whoever has left."""
        return sum(self.bytes_now.values()) - sum(self.past.seen_bytes.values())

    @property
    def thorough_cpu_seconds(self) -> float:
        """The CPU time of two whole passes over all guests, skipping nothing."""
        pages = sum(self.bytes_now.values()) / self.now.page_bytes
        return WHOLE_PASSES * pages * self.prospect.page_cost_seconds

    @property
    def cheap(self) -> bool:
        """Whether two thorough passes cost so little that every guest is worth them."""
        return self.thorough_cpu_seconds <= DEAR_CPU_SECONDS

    @property
    def is_most(self) -> bool:
        """Whether about half of all memory is new: what is usual for the rest, maybe a lone guest, says nothing."""
        return self.growth_bytes >= MOST_SHARE * sum(self.bytes_now.values())

    @property
    def thorough_worth_bytes(self) -> int:
        """Memory that would pay for it."""
        return self.prospect.worth_bytes(self.thorough_cpu_seconds)


@dataclass(frozen=True, slots=True)
class Reason:
    """What news says, and the passes that it wants."""

    sentence: str
    thorough: bool
    """Nothing old is skipped."""
    passes: int = WHOLE_PASSES
    """Whole ones."""


def next_news(past: News, now: Snapshot, prospect: Prospect) -> News:
    """The news after this snapshot: past itself, but for its boost and bookkeeping, when there is none."""
    seconds = now.clock.monotonic_seconds
    known = _bookkept(_boosted(past, now, prospect), now, prospect)
    if prospect.left_alone:
        return resting(known, now) if known.boost.open else known
    case = Case(now=now, past=known, prospect=prospect, bytes_now=_bytes_now(now))
    for kind, reason in REASONS.items():
        found = reason(case) if known.hears(kind, seconds) else None
        if found:
            return _heard(case, kind, found)
    return known


def _arrival(case: Case) -> Reason | None:
    """Every guest is worth thorough passes where they are cheap; the first ones always are."""
    if not case.arrived or not (case.cheap or not case.past.number):
        return None
    names = sorted(guest.name for guest in case.now.guests if guest.key in case.arrived)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return Reason(f"new guest{'s' if len(names) > 1 else ''}: {shown}", thorough=True)


def _unmerged(case: Case) -> Reason | None:
    """Quick passes left more than usual, and so much that it may pay for thorough ones."""
    unmerged = 0 if case.past.boost.open else case.past.usual.unmerged_beyond_bytes(case.now)
    if unmerged < case.thorough_worth_bytes:
        return None
    worth = f"worth thorough passes from {human_bytes(case.thorough_worth_bytes)} on"
    return Reason(f"{human_bytes(unmerged)} more found no equal, {worth}", thorough=True)


def _retry(case: Case) -> Reason | None:
    """Merging was at a loss, and the time of the next try has come."""
    return (
        Reason("merging was given up long enough ago for another try", thorough=True) if case.prospect.retry else None
    )


def _scarce(case: Case) -> Reason | None:
    """Memory became short since the last news."""
    since = case.prospect.scarce_since_seconds
    if since is None or case.past.seconds >= since or not case.bytes_now:
        return None
    available = f"{case.now.memory.available_fraction:.0%} available"
    if case.prospect.short_in_seconds:
        soon = human_seconds(round(case.prospect.short_in_seconds))
        return Reason(f"memory becomes scarce in {soon}: {available} now", thorough=case.cheap)
    return Reason(f"memory became scarce: {available}", thorough=case.cheap)


def _growth(case: Case) -> Reason | None:
    """The guests grew by what would pay for two thorough passes, or at least for one like the last.

    Where growth has brought nothing for long, one like the last is all that it gets.
    """
    hopeless = case.past.record(NewsKind.GROWTH).wait_seconds >= FRUITLESS_MAX_SECONDS
    grew = f"the guests' memory grew by {human_bytes(case.growth_bytes)}"
    if case.growth_bytes >= case.thorough_worth_bytes and not hopeless:
        return Reason(
            f"{grew}, worth passes from {human_bytes(case.thorough_worth_bytes)} on",
            thorough=case.cheap or case.is_most,
        )
    pass_cpu_seconds = case.prospect.pass_cpu_seconds
    if pass_cpu_seconds is not None and case.growth_bytes >= case.prospect.worth_bytes(pass_cpu_seconds):
        if case.is_most and not hopeless:
            return Reason(f"{grew}, about as much as all had before", thorough=True)
        return Reason(f"{grew}, worth a quick pass", thorough=case.cheap, passes=1)
    return None


REASONS: Mapping[NewsKind, Callable[[Case], Reason | None]] = {
    NewsKind.ARRIVAL: _arrival,
    NewsKind.UNMERGED: _unmerged,
    NewsKind.RETRY: _retry,
    NewsKind.SCARCE: _scarce,
    NewsKind.GROWTH: _growth,
}
"""All of them, the first one first."""


def _boosted(past: News, now: Snapshot, prospect: Prospect) -> News:
    """The news with its boost as it stands, and with what that brought when it is over."""
    running = {guest.key for guest in now.guests}
    ended, each = prospect.ended, prospect.pass_cpu_seconds or 0.0
    done_before = prospect.passes_done - (ended.passes if ended else 0)
    left = [key for key in past.seen_bytes if key not in running and past.had_merged(key, done_before)]
    gone = sum(past.seen_bytes[key] for key in left)
    gone_bytes = past.gone_bytes + gone * (1 - now.counters.unmerged_share)
    boost = past.boost.after(
        now,
        ended,
        passes_done=prospect.passes_done,
        gained_bytes=ended.gained_bytes + round(gone_bytes) if ended else 0,
        cpu_seconds=each * ended.passes if ended else 0.0,
        price=prospect.price,
    )
    known = replace(past, boost=boost, gone_bytes=0 if ended else gone_bytes)
    if boost.open or not past.boost.open:
        return known
    seconds = now.clock.monotonic_seconds
    told = {kind: past.record(kind).after(boost, seconds) for kind in past.kinds}
    share = now.counters.unmerged_share if boost.thorough_until_pass else past.usual.unmerged_share
    usual = replace(past.usual, unmerged_share=share)
    return replace(known, records={**past.records, **told}, usual=usual)


def _bookkept(past: News, now: Snapshot, prospect: Prospect) -> News:
    """The news with all that is needed to notice the next."""
    begun = [guest for guest in now.guests if guest.key not in past.guests and not guest.may_merge]
    asking = now.clock.monotonic_seconds + ASKING_SECONDS if begun else past.asking_until_seconds
    seen = {key: min(past.seen_bytes[key], size) for key, size in _bytes_now(now).items() if key in past.seen_bytes}
    return replace(
        past,
        guests={guest.key: past.guests.get(guest.key, prospect.passes_done) for guest in now.guests},
        asking_until_seconds=asking,
        seen_bytes=seen,
        usual=past.usual.after(now.counters, prospect.pass_skipped_pages),
    )


def resting(past: News, now: Snapshot) -> News:
    """The news with its open boost as it was: that goes on when there is need, and has taken no time meanwhile."""
    return replace(past, boost=replace(past.boost, since_seconds=now.clock.monotonic_seconds))


def _heard(case: Case, kind: NewsKind, reason: Reason) -> News:
    """The news that this is."""
    known, seconds = case.past, case.now.clock.monotonic_seconds
    boost = known.boost.wanted(
        case.now,
        passes_done=case.prospect.passes_done,
        passes=reason.passes,
        thorough=reason.thorough,
        price=case.prospect.price,
        new_bytes=case.growth_bytes,
    )
    return replace(
        known,
        number=known.number + 1,
        sentence=reason.sentence,
        seconds=seconds,
        boost=boost,
        kinds=(known.kinds if known.boost.open else frozenset()) | {kind},
        seen_bytes=case.bytes_now,
    )


def _bytes_now(now: Snapshot) -> dict[GuestKey, int]:
    return {guest.key: guest.rss_bytes for guest in now.guests if guest.may_merge}
