"""News: reasons to think that there is memory which nobody has tried to merge yet. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ksmtuned_py.model import Counters, Snapshot
from ksmtuned_py.units import GIB, MIB, human_bytes

WHOLE_PASSES = 2
"""A page merges when its checksum was the same in two passes, so news is settled after two whole ones."""
GuestKey = tuple[int, int]
"""A process for good: PID and start."""
GROWTH_MIN_BYTES = 16 * MIB
DEAR_CPU_SECONDS = 5.0
"""Two thorough passes that take longer than this are not for every guest that comes: from 4 to 10 GiB of guests on."""
ASKING_SECONDS = 5.0
"""A program that became a guest's has asked for merging by then, or never will."""
OLD_SHARE = 0.1
"""Of what is unmerged: if smart_scan skips no more, most of what new memory could be equal to is looked at."""
STUCK_UNSHARED, STUCK_VOLATILE = 0.01, 0.25
STUCK_PASSES_MAX = 2
"""More than these are no bad luck but memory that changes all the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """The latest news, and what is needed to notice the next."""

    number: int = 0
    """Counts the news."""
    sentence: str = ""
    seconds: float = 0.0
    """When it came (monotonic)."""
    thorough_until_pass: int = 0
    """Until so many passes are done nothing old is skipped ..."""
    done_at_pass: int = 0
    """... it is settled when this many are done ..."""
    open: bool = False
    """... and the last of them no longer paid."""
    stuck_passes: int = 0
    """Passes of these that did not count, because ksmd's unstable tree was stuck."""
    guests: frozenset[GuestKey] = frozenset()
    arrived: frozenset[GuestKey] = frozenset()
    """The guests whose arrival it is."""
    seen_bytes: Mapping[GuestKey, int] = field(default_factory=dict)
    """Each guest's memory at the last news, or the least since then: what the passes since have looked at."""
    unmerged_share: float | None = None
    """Of what ksmd tracks, as the last thorough passes left it, or the least since; None before they are done."""
    old_pages: int | None = None
    """What smart_scan has skipped at most in a pass since ksmd tracked nothing; None: that was not seen yet."""

    @property
    def is_thorough(self) -> bool:
        """Nothing old is skipped until it is settled."""
        return self.thorough_until_pass >= self.done_at_pass

    def are_young(self, counters: Counters) -> bool:
        """Whether smart_scan skips next to nothing: then there is no point in switching it off, and pages age on."""
        return self.old_pages is not None and self.old_pages <= counters.unmerged_pages * OLD_SHARE

    def with_another_pass(self) -> "News":
        """One of its passes, a thorough one, did not count."""
        return replace(
            self,
            thorough_until_pass=self.thorough_until_pass + 1,
            done_at_pass=self.done_at_pass + 1,
            stuck_passes=self.stuck_passes + 1,
        )

    def called_off(self, passes_done: int) -> "News":
        """It was none."""
        return replace(self, open=False, thorough_until_pass=0, done_at_pass=passes_done, arrived=frozenset())

    def settled(self, counters: Counters, passes_done: int) -> "News":
        """Nothing more is to be found."""
        share = counters.unmerged_share if self.thorough_until_pass else self.unmerged_share
        return replace(self.called_off(passes_done), unmerged_share=share)


NO_NEWS = News()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What decides whether a look at all memory is worth its CPU."""

    passes_done: int
    price: float
    """CPU-seconds that a saved GiB may cost."""
    page_cost_seconds: float
    pass_cpu_seconds: float | None
    """What the last pass took; None = unknown."""
    pass_skipped_pages: int
    """How many it passed over."""

    def thorough_cpu_seconds(self, guest_bytes: int, page_bytes: int) -> float:
        """Of two whole passes over all guests, skipping nothing."""
        return WHOLE_PASSES * guest_bytes / page_bytes * self.page_cost_seconds

    def quick_bytes(self) -> float:
        """Memory that would pay for another pass like the last one; infinite as long as nobody knows."""
        return float("inf") if self.pass_cpu_seconds is None else self.worth_bytes(self.pass_cpu_seconds)

    def worth_bytes(self, cpu_seconds: float) -> int:
        """Memory that would pay for so much CPU if all of it merged."""
        return max(GROWTH_MIN_BYTES, round(cpu_seconds / max(self.price, 1e-9) * GIB))


@dataclass(frozen=True, slots=True)
class Tidings:
    """What is new, and what has to be done about it."""

    sentence: str
    thorough: bool
    """Nothing old is skipped."""
    passes: int = WHOLE_PASSES
    """Whole ones."""


def find_news(past: News, now: Snapshot, prospect: Prospect, *, need_rose: bool, retry: bool) -> News:
    """The news after this snapshot: past itself, but for its bookkeeping, when there is none.

    There are two kinds. Thorough passes skip nothing old, so that pages that nobody shared meet their new equals. They
    are dear where there is much memory. There, new memory gets a quick look first, with smart_scan: new pages are not
    skipped, and find each other, and all that is merged already. What that leaves unmerged may be worth a thorough one.
    """
    now_bytes = {guest.key: guest.rss_bytes for guest in now.guests if guest.may_merge}
    guests = frozenset(guest.key for guest in now.guests)
    seen = {key: min(past.seen_bytes[key], size) for key, size in now_bytes.items() if key in past.seen_bytes}
    known = replace(
        past,
        guests=guests,
        seen_bytes=seen,
        unmerged_share=_least_unmerged(past, now.counters),
        old_pages=_old_pages(past, now.counters, prospect),
    )
    arrived, growth = guests - past.guests, sum(now_bytes.values()) - sum(seen.values())
    found = _tidings(known, now, prospect, arrived, growth, need_rose=need_rose, retry=retry)
    if found is None:
        return known
    if known.open:  # a false alarm must not settle other news
        arrived = known.arrived | arrived if known.arrived else frozenset()
    under_way = 1 if now.counters.candidate_pages else 0  # a pass that began before the news does not count
    done_at_pass = prospect.passes_done + under_way + found.passes
    return replace(
        known,
        number=known.number + 1,
        sentence=found.sentence,
        seconds=now.clock.monotonic_seconds,
        thorough_until_pass=done_at_pass if found.thorough else known.thorough_until_pass,
        done_at_pass=max(done_at_pass, known.done_at_pass),
        open=True,
        stuck_passes=0,
        arrived=arrived,
        seen_bytes=now_bytes,
    )


def _tidings(
    known: News,
    now: Snapshot,
    prospect: Prospect,
    arrived: frozenset[GuestKey],
    growth: int,
    *,
    need_rose: bool,
    retry: bool,
) -> Tidings | None:
    """The first of all reasons for a boost that holds."""
    guest_bytes = sum(known.seen_bytes.values()) + growth
    thorough_cpu_seconds = prospect.thorough_cpu_seconds(guest_bytes, now.page_bytes)
    cheap = thorough_cpu_seconds <= DEAR_CPU_SECONDS
    worthwhile = prospect.worth_bytes(thorough_cpu_seconds)
    unmerged = 0 if known.open else _unusually_unmerged_bytes(now, known.unmerged_share)
    if arrived and (cheap or not known.number):
        return Tidings(_arrival_sentence(now, arrived), thorough=True)
    if unmerged >= worthwhile:
        sizes = f"{human_bytes(unmerged)} more found no equal, worth a look at all from {human_bytes(worthwhile)} on"
        return Tidings(sizes, thorough=True)
    if retry:
        return Tidings("merging was given up long enough ago for another try", thorough=True)
    grew = f"the guests' memory grew by {human_bytes(growth)}"
    if growth >= worthwhile:
        return Tidings(f"{grew}, worth a look from {human_bytes(worthwhile)} on", thorough=cheap)
    if need_rose and now.guests:
        return Tidings(f"memory became scarce: {now.memory.available_fraction:.0%} available", thorough=cheap)
    if growth >= prospect.quick_bytes():
        return Tidings(f"{grew}, worth a quick look", thorough=cheap, passes=1)
    return None


def is_false_alarm(news: News, now: Snapshot) -> bool:
    """Whether those that came have ended, or have not asked for merging in all the time that a guest needs for it."""
    waited = now.clock.monotonic_seconds - news.seconds >= ASKING_SECONDS
    return bool(waited and news.arrived) and not any(
        guest.key in news.arrived and guest.may_merge for guest in now.guests
    )


def _old_pages(past: News, counters: Counters, prospect: Prospect) -> int | None:
    if not counters.candidate_pages and counters.pages_skipped is not None:
        return 0
    return None if past.old_pages is None else max(past.old_pages, prospect.pass_skipped_pages)


def _least_unmerged(past: News, counters: Counters) -> float | None:
    """The least share since; nothing tracked says nothing."""
    if past.unmerged_share is None or not counters.candidate_pages:
        return past.unmerged_share
    return min(past.unmerged_share, counters.unmerged_share)


def _unusually_unmerged_bytes(now: Snapshot, usual_share: float | None) -> int:
    """What is unmerged beyond the usual share of it."""
    if usual_share is None:
        return 0
    usual = usual_share * now.counters.candidate_pages
    return round((now.counters.unmerged_pages - usual) * now.page_bytes)


def is_stuck(counters: Counters) -> bool:
    """Whether the last pass left nothing in the unstable tree though much is unmerged.

    When the page at the tree's root cannot be fetched, every insertion of that pass fails (mm/ksm.c,
    unstable_tree_search_insert): full_scans advances, and pages that could have met did not. Only thorough passes can
    be judged so: with smart_scan the kernel counts what it skips as volatile.
    """
    candidates = counters.candidate_pages
    return (
        counters.pages_unshared < candidates * STUCK_UNSHARED and counters.pages_volatile > candidates * STUCK_VOLATILE
    )


def _arrival_sentence(now: Snapshot, arrived: frozenset[GuestKey]) -> str:
    names = sorted(guest.name for guest in now.guests if guest.key in arrived)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"new guest{'s' if len(names) > 1 else ''}: {shown}"
