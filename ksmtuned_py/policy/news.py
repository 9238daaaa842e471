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
USUAL_GUEST_BYTES = GIB
"""Where a guest of this size would pay for its passes, any new one is news: up to 21 GiB of guests when calm."""
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
    done_at_pass: int = 0
    """It is settled when this many passes are done ..."""
    open: bool = False
    """... and the last of them no longer paid."""
    stuck_passes: int = 0
    """Passes of these that did not count, because ksmd's unstable tree was stuck."""
    guests: frozenset[GuestKey] = frozenset()
    tried_bytes: Mapping[GuestKey, int] = field(default_factory=dict)
    """Each guest's memory at the last news, or the least since then: what the passes since have looked at."""

    def with_another_pass(self) -> "News":
        """One of its passes did not count."""
        return replace(self, done_at_pass=self.done_at_pass + 1, stuck_passes=self.stuck_passes + 1)


NO_NEWS = News()


def find_news(
    past: News,
    now: Snapshot,
    *,
    passes_done: int,
    need_rose: bool,
    price: float,
    cost_seconds: float,
    last_pass_pays: bool,
    retry: bool,
) -> News:
    """The news after this snapshot: past itself, but for its bookkeeping, when there is none.

    A new guest is news at once, unless passes are long and have lately not paid: on a big host where guests come and
    go all the time that would be one endless boost. Then its memory has to be worth the passes, as any growth; and it
    is growth even when as much has gone with others, since nobody has tried to merge it.
    """
    now_bytes = {guest.key: guest.rss_bytes for guest in now.guests}
    guests = frozenset(now_bytes)
    tried = {key: min(past.tried_bytes[key], size) for key, size in now_bytes.items() if key in past.tried_bytes}
    known = replace(past, guests=guests, tried_bytes=tried)
    growth = sum(now_bytes.values()) - sum(tried.values())
    worthwhile = worthwhile_growth_bytes(sum(now_bytes.values()), now.page_bytes, price, cost_seconds)
    arrived = guests - past.guests
    if arrived and (last_pass_pays or worthwhile <= USUAL_GUEST_BYTES):
        sentence = _arrival_sentence(now, arrived)
    elif growth >= worthwhile:
        sentence = f"the guests' memory grew by {human_bytes(growth)}, worth a look from {human_bytes(worthwhile)} on"
    elif need_rose and guests:
        sentence = f"memory became scarce: {now.memory.available_fraction:.0%} available"
    elif retry:
        sentence = "merging was given up long enough ago for another try"
    else:
        return known
    return _told(replace(known, tried_bytes=now_bytes), now, sentence, passes_done)


def _told(known: News, now: Snapshot, sentence: str, passes_done: int) -> News:
    under_way = 1 if now.counters.candidate_pages else 0  # a pass that began before the news does not count
    return News(
        number=known.number + 1,
        sentence=sentence,
        seconds=now.clock.monotonic_seconds,
        done_at_pass=passes_done + under_way + WHOLE_PASSES,
        open=True,
        guests=known.guests,
        tried_bytes=known.tried_bytes,
    )


def is_stuck(counters: Counters) -> bool:
    """Whether the last pass left nothing in the unstable tree though much is unmerged.

    When the page at the tree's root cannot be fetched, every insertion of that pass fails (mm/ksm.c,
    unstable_tree_search_insert): full_scans advances, and pages that could have met did not.
    """
    candidates = counters.candidate_pages
    return (
        counters.pages_unshared < candidates * STUCK_UNSHARED and counters.pages_volatile > candidates * STUCK_VOLATILE
    )


def worthwhile_growth_bytes(guest_bytes: int, page_bytes: int, price: float, cost_seconds: float) -> int:
    """Growth that would pay for its passes over all guests even at the going price per GiB, if all of it merged."""
    cpu_seconds = WHOLE_PASSES * guest_bytes / page_bytes * cost_seconds
    return max(GROWTH_MIN_BYTES, round(cpu_seconds / max(price, 1e-9) * GIB))


def _arrival_sentence(now: Snapshot, arrived: frozenset[GuestKey]) -> str:
    names = sorted(guest.name for guest in now.guests if guest.key in arrived)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"new guest{'s' if len(names) > 1 else ''}: {shown}"
