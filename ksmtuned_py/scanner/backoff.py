"""Decides when a guest's zero pages are left alone, because giving them back does not pay or does not work. Pure.

A page that goes and comes back takes 6 us (2.5 to go, 3.5 to come; measured on 6.18). A guest is left alone when a
tenth of its zeros comes back within 10 s. So the others cost at most 1.6 % of a core for each GiB of zeros. The period
is in seconds and not in passes. A pass over a small guest takes a fifth of a second, one over a large host some
minutes.
"""

from dataclasses import dataclass, field

from ksmtuned_py.units import human_seconds

PERIOD_SECONDS = 10.0
LONGEST_ALONE_SECONDS = 640.0
_TOO_MANY = 0.1
_FEW = 64


@dataclass(slots=True)
class Account:
    """What giving zero pages back has brought for one guest."""

    out_pages: int = 0
    """Pages that were given back, as of the last pass."""
    back_pages: int = 0
    """Pages that the guest touched again in this period, or that were asked for in vain."""
    locked: list[tuple[int, int]] = field(default_factory=list)
    """Mappings whose pages the kernel refused to swap out in this period."""
    locked_pages: int = 0
    """Zero pages in these mappings, in this pass."""
    times_alone: int = 0
    """How often the guest was left alone so far."""
    reason: str | None = None
    """Why the guest, or a part of it, is left alone; None while it is not."""
    reporting: bool | None = None
    """Whether the guest reports its free pages; None while nobody has looked."""
    _swapped_pages: int = 0
    _counted_pages: int = 0
    _period_end: float = 0.0
    _alone_until: float = 0.0
    _alone_seconds: float = PERIOD_SECONDS

    def may_go(self, now_seconds: float) -> bool:
        """Whether the guest's zero pages may be given back now."""
        return not self.reporting and now_seconds >= self._alone_until

    def swapped(self, pages: int, counted_pages: int, now_seconds: float) -> None:
        """Counts pages that were swapped out, and the zeros that the kernel counted meanwhile (others' included)."""
        self._swapped_pages += pages
        self._counted_pages += min(pages, counted_pages)
        if self._swapped_pages > _FEW and self._counted_pages < self._swapped_pages // 2:
            counts = f"the kernel counts {self._counted_pages} of {self._swapped_pages} swapped pages as zeros"
            self.leave_alone(counts, now_seconds)

    def end_pass(self, now_seconds: float) -> None:
        """Judges what came back in this period; pages that were out before it was left alone are not counted."""
        base = self.out_pages + self.back_pages
        if not self.may_go(now_seconds):
            self.back_pages = 0
        elif self.back_pages > max(_FEW, _TOO_MANY * base):
            period = human_seconds(PERIOD_SECONDS)
            self.leave_alone(
                f"{self.back_pages} of {base} zero pages came back, or did not go, within {period}", now_seconds
            )
        elif now_seconds >= self._period_end:
            many = self.locked_pages > _FEW  # a library that locks the memory of its keys is not worth telling
            self.reason = f"{self.locked_pages} zero pages stay: the guest has locked that memory" if many else None
            self._alone_seconds = PERIOD_SECONDS
            self._begin_period(now_seconds)
        self.locked_pages = 0

    def leave_alone(self, reason: str, now_seconds: float) -> None:
        """Leaves the guest alone, each time twice as long as before, until a period was good."""
        self.times_alone += 1
        self.reason = f"left alone for {human_seconds(self._alone_seconds)}: {reason}"
        self._alone_until = now_seconds + self._alone_seconds
        self._alone_seconds = min(LONGEST_ALONE_SECONDS, self._alone_seconds * 2)
        self._begin_period(self._alone_until)

    def _begin_period(self, at_seconds: float) -> None:
        self.back_pages = self._swapped_pages = self._counted_pages = 0
        self.locked.clear()
        self._period_end = at_seconds + PERIOD_SECONDS
