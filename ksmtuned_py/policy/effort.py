"""The effort that merging takes, by the last thorough boost: its passes, and what a page cost in it. Pure.

The cost of a page in a cruise says nothing of it. Merged pages are cheap, and where smart_scan skips, one page that is
scanned stands for many.
"""

from dataclasses import dataclass

from ksmtuned_py.model import Snapshot
from ksmtuned_py.policy.boost import Boost
from ksmtuned_py.policy.scanner import cost_max_seconds, usual_cost_seconds

PASSES_UNKNOWN, PASSES_LEAST, PASSES_MOST = 4, 2, 8
"""Two passes merge all in theory, and four did on real guests, where zeros are split in the fourth only."""
BUDGET_LEAST = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What merging took last time."""

    passes: int = PASSES_UNKNOWN
    page_cost_seconds: float = 0.0
    """0 until it is measured."""

    def after(self, boost: Boost, passes_done: int, now: Snapshot) -> "Effort":
        """The effort after a boost that is over now."""
        if not boost.is_thorough:
            return self
        pages = (now.counters.pages_scanned or 0) - (boost.scanned_pages or 0)
        cost = min(boost.cpu_seconds / pages, cost_max_seconds(now)) if pages > 0 else self.page_cost_seconds
        passes = min(max(passes_done - boost.since_pass, PASSES_LEAST), PASSES_MOST)
        return Effort(passes=passes, page_cost_seconds=cost)

    def lead_seconds(self, now: Snapshot, budget: float) -> float:
        """The time that merging takes with such a share of a core: so many passes over what is not merged.

        A page that is compared for the first time costs no less than it usually does.
        """
        resident = sum(guest.rss_bytes for guest in now.guests if guest.may_merge) // now.page_bytes
        merged = now.counters.pages_sharing + now.counters.pages_shared
        return self.passes * max(0, resident - merged) * self.compared_seconds(now) / max(budget, BUDGET_LEAST)

    def compared_seconds(self, now: Snapshot) -> float:
        """What a page costs that is compared and not skipped."""
        return max(self.page_cost_seconds, usual_cost_seconds(now))
