"""What is usual on this host: how much finds no equal, and how much smart_scan passes over. Pure."""

from dataclasses import dataclass

from ksmtuned_py.model import Counters, Snapshot

OLD_SHARE = 0.1
"""The share of what is unmerged: if smart_scan skips no more, most of what new memory could be equal to is scanned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """What is usual on this host, as far as it was seen."""

    unmerged_share: float | None = None
    """The share of what ksmd tracks, as the last thorough passes left it, or the least since; None before that."""
    old_pages: int | None = None
    """What smart_scan has skipped at most in a pass since ksmd tracked nothing; None: that was not seen yet."""

    def after(self, counters: Counters, skipped_pages: int) -> "Usual":
        """What is usual after one more look; `skipped_pages` are those of the last pass."""
        return Usual(unmerged_share=self._least_unmerged(counters), old_pages=self._old_pages(counters, skipped_pages))

    def are_young(self, counters: Counters) -> bool:
        """Whether smart_scan skips next to nothing: then there is no point in switching it off, and pages age on."""
        return self.old_pages is not None and not skips_much(counters, self.old_pages)

    def unmerged_beyond_bytes(self, now: Snapshot) -> int:
        """What is unmerged beyond the usual share."""
        if self.unmerged_share is None:
            return 0
        usual_pages = self.unmerged_share * now.counters.candidate_pages
        return round((now.counters.unmerged_pages - usual_pages) * now.page_bytes)

    def _least_unmerged(self, counters: Counters) -> float | None:
        if self.unmerged_share is None or not counters.candidate_pages:  # nothing tracked says nothing
            return self.unmerged_share
        return min(self.unmerged_share, counters.unmerged_share)

    def _old_pages(self, counters: Counters, skipped_pages: int) -> int | None:
        if not counters.candidate_pages and counters.pages_skipped is not None:
            return 0
        return None if self.old_pages is None else max(self.old_pages, skipped_pages)


NOT_SEEN = Usual()


def skips_much(counters: Counters, skipped_pages: int) -> bool:
    """Whether a pass that skips so much keeps new memory apart from what it could be equal to."""
    return skipped_pages > counters.unmerged_pages * OLD_SHARE
