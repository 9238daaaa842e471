"""The life of a boost: which of its passes count, when it is over, and what it brought. Pure.

Theory of operation
===================
A boost is opened by news, and further news joins it. It wants some whole passes: two as a rule, since a page merges
only when its content was the same in two passes. The pass under way when the news came is not one of them.

A pass in which pages could not have met is *mute* and does not count. After the first scan of new memory nothing has
been compared, and after bad luck at the root of ksmd's unstable tree next to nothing was. In a thorough boost a pass
is mute, too, when smart_scan skipped much in it (pages are young until one pass skips them all), or when much was new
in it. Some memory changes all the time, and its passes are all alike, so only a few may be mute.

Mute passes prolong a boost no more once the second whole pass has compared everything: what was new in it, changed, or
skipped is next to nothing beside what the news is about. What had an equal has met it by then. The first whole pass
does not count. A guest may come behind the place that ksmd has reached, and the next pass is the first to see it. That
pass may have begun before we look. The guest then seems to be compared, and has met nobody.

When its passes are done, a boost goes on while it pays. It pays when the last pass gained enough for its CPU, or when
what that pass saw for the first time will: that can merge in the next. The price is the highest at which the boost was
wanted. Merging itself takes a host from short to calm, and must not end half way for that.

A boost is over at once when there is nothing to scan: no page is tracked, and none is scanned.
"""

from dataclasses import dataclass, replace

from ksmtuned_py.model import Counters, Run, Snapshot
from ksmtuned_py.policy.scanner import Pass
from ksmtuned_py.policy.usual import skips_much
from ksmtuned_py.units import GIB

WHOLE_PASSES = 2
MUTE_UNSHARED, MUTE_VOLATILE = 0.01, 0.25
UNCOMPARED_SHARE = 0.01
"""Of what came: with less of it uncompared, the second whole pass has compared everything."""
MUTE_LOOKS_MAX = 3
"""The rest of a pass among what ended guests left, a first scan, and bad luck: more is memory that always changes."""
FRUITLESS_PRICE = 10.0
"""Times the price: a boost may be dearer than a pass, for most of it goes to memory that is no news. Sim, churn: 3."""
NOTHING_SECONDS = 10.0
"""A scanner that has anything to scan has begun by then, at any budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boost:
    """A boost under way, or the last one."""

    open: bool = False
    since_seconds: float = 0.0
    """When it began (monotonic)."""
    since_pass: int = 0
    """How many passes were done by then, of all since the daemon's start."""
    price: float = 0.0
    """CPU-seconds that a GiB may cost, the highest since it began."""
    whole_from_pass: int = 0
    """When so many were done, the first one began that is whole since the last news."""
    uncompared_pages: int = 0
    """With fewer pages uncompared, the second whole pass has compared everything."""
    done_at_pass: int = 0
    """Its passes are done when so many are, of all since the daemon's start."""
    thorough_until_pass: int = 0
    """Until so many are, nothing old is skipped."""
    mute_looks: int = 0
    """Looks at which mute passes were found to be over: on a small host many passes at a time."""
    unpaid_passes: int = 0
    """The last so many did not pay, mute ones among them: where all are, news must not excuse others for ever."""
    gained_bytes: int = 0
    """What its passes gained, without those that lost."""
    cpu_seconds: float = 0.0
    scanned_pages: int | None = None
    """The kernel's count when it began."""

    @property
    def is_thorough(self) -> bool:
        """Nothing old is skipped to its end."""
        return self.thorough_until_pass >= self.done_at_pass

    @property
    def was_fruitless(self) -> bool:
        """Whether it gained next to nothing for its CPU; one that took none did no harm."""
        return self.cpu_seconds > 0 and not pays(self.gained_bytes, self.cpu_seconds, self.price * FRUITLESS_PRICE)

    def wanted(
        self, now: Snapshot, *, passes_done: int, passes: int, thorough: bool, price: float, new_bytes: int
    ) -> "Boost":
        """News of so much memory came, and wants so many whole passes after the one under way."""
        begun = (
            self
            if self.open
            else Boost(
                open=True,
                since_seconds=now.clock.monotonic_seconds,
                since_pass=passes_done,
                scanned_pages=now.counters.pages_scanned,
            )
        )
        under_way = 1 if now.counters.candidate_pages else 0
        done_at_pass = passes_done + under_way + passes
        uncompared = int(max(0, new_bytes) / now.page_bytes * UNCOMPARED_SHARE)
        return replace(
            begun,
            price=max(begun.price, price),
            whole_from_pass=passes_done + under_way,
            uncompared_pages=min(uncompared, begun.uncompared_pages) if self.open else uncompared,
            done_at_pass=max(done_at_pass, begun.done_at_pass),
            thorough_until_pass=done_at_pass if thorough else begun.thorough_until_pass,
            mute_looks=0,
        )

    def after(
        self,
        now: Snapshot,
        ended: Pass | None,
        *,
        passes_done: int,
        gained_bytes: int,
        cpu_seconds: float,
        price: float,
    ) -> "Boost":
        """After this look, at which `ended` was found to be over; it gained and took so much."""
        if not self.open:
            return self
        if ended is None:
            return replace(self, open=not self._finds_nothing(now))
        boost = replace(
            self,
            price=max(self.price, price),
            gained_bytes=self.gained_bytes + max(0, gained_bytes),
            cpu_seconds=self.cpu_seconds + cpu_seconds,
        )
        mute = is_mute(now.counters, ended) or (self.is_thorough and is_partial(now.counters, ended))
        if mute and self.mute_looks < MUTE_LOOKS_MAX:
            return boost._longer(ended.passes)
        promised_bytes = max(ended.gained_bytes, promise_bytes(now, ended))
        paid = pays(promised_bytes, cpu_seconds, boost.price)
        boost = replace(boost, unpaid_passes=0 if paid else self.unpaid_passes + ended.passes)
        # What is volatile was seen for the first time, has changed, or was skipped: it was compared with nothing.
        wholly = passes_done >= self.whole_from_pass + WHOLE_PASSES
        compared = wholly and now.counters.pages_volatile < self.uncompared_pages
        return replace(boost, open=paid or (passes_done < self.done_at_pass and not compared))

    def _longer(self, passes: int) -> "Boost":
        return replace(
            self,
            done_at_pass=self.done_at_pass + passes,
            thorough_until_pass=self.thorough_until_pass + passes * self.is_thorough,
            mute_looks=self.mute_looks + 1,
            unpaid_passes=self.unpaid_passes + passes,
        )

    def _finds_nothing(self, now: Snapshot) -> bool:
        waited = now.clock.monotonic_seconds - self.since_seconds >= NOTHING_SECONDS
        still = now.counters.pages_scanned == self.scanned_pages and not now.counters.candidate_pages
        return waited and still and now.knobs.run == Run.MERGE


NO_BOOST = Boost()


def pays(gained_bytes: float, cpu_seconds: float, price: float) -> bool:
    """Whether so much memory is worth so much CPU, at a price in CPU-seconds per GiB."""
    return gained_bytes > 0 and cpu_seconds <= price * gained_bytes / GIB


def is_mute(counters: Counters, ended: Pass) -> bool:
    """Whether pages could not have met in a pass, as it left the counters.

    Nothing is tracked, or next to nothing is in the unstable tree though much is unmerged: it was seen for the first
    time, or the page at the tree's root could not be fetched, and every insertion of that pass failed (mm/ksm.c,
    unstable_tree_search_insert). What smart_scan skipped is counted as volatile, too, and says nothing.
    """
    tracked = counters.candidate_pages
    volatile = counters.pages_volatile - ended.each_skipped_pages
    if not tracked:
        return not counters.saved_pages
    return counters.pages_unshared < tracked * MUTE_UNSHARED and volatile > tracked * MUTE_VOLATILE


def is_partial(counters: Counters, ended: Pass) -> bool:
    """Whether a pass left much out: smart_scan skipped it, or it was seen for the first time and is not compared."""
    fresh = fresh_pages(counters, ended)
    return skips_much(counters, ended.each_skipped_pages) or fresh > counters.candidate_pages * MUTE_VOLATILE


def fresh_pages(counters: Counters, ended: Pass) -> int:
    """The pages that a pass saw for the first time, and that nothing was compared with yet."""
    return min(ended.new_pages, max(0, counters.pages_volatile - ended.each_skipped_pages))


def promise_bytes(now: Snapshot, ended: Pass) -> float:
    """What the next pass may gain: of the pages that the last one saw for the first time, as many as merged before."""
    counters = now.counters
    compared = counters.candidate_pages - counters.pages_volatile
    share = counters.saved_pages / compared if compared else 1.0
    return min(1.0, share) * fresh_pages(counters, ended) * now.page_bytes
