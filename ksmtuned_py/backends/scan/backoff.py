"""PURE: when a guest's zero pages are left alone, because giving them back is work for nothing.

A page that goes and comes back takes 6 us (2.5 to go, 3.5 to come; measured on 6.18). A guest of which less than a
tenth comes back within 10 s so costs at most 1.6 % of a core for each GiB of zeros. It is counted in seconds and not in
passes: a pass over a small guest takes a fifth of a second, one over a large host some minutes.
"""

from dataclasses import dataclass

from ksmtuned_py.units import human_seconds

PERIOD_SECONDS = 10.0
LONGEST_REST_SECONDS = 640.0
_TOO_MANY = 0.1
_FEW = 64


@dataclass(slots=True)
class Account:
    """How one guest takes it."""

    out_pages: int = 0
    """Given back, as of the last pass."""
    back_pages: int = 0
    """Touched again in this period, or asked for in vain."""
    rests: int = 0
    """How often it was left alone so far."""
    reason: str = ""
    """Why it is left alone; '' while it is not."""
    reporting: bool | None = None
    """It reports its free pages; None = nobody has looked."""
    _period_end: float = 0.0
    _rest_end: float = 0.0
    _rest_seconds: float = PERIOD_SECONDS

    def may_go(self, now_seconds: float) -> bool:
        """Whether it is not left alone now."""
        return not self.reporting and now_seconds >= self._rest_end

    def end_pass(self, now_seconds: float) -> None:
        """Judges what came back in this period; what was out before a rest may come back as it likes."""
        if not self.may_go(now_seconds):
            self.back_pages = 0
        elif self.back_pages > max(_FEW, _TOO_MANY * (self.out_pages + self.back_pages)):
            self._rest(now_seconds)
        elif now_seconds >= self._period_end:
            self._rest_seconds, self.reason = PERIOD_SECONDS, ""
            self._begin_period(now_seconds)

    def _rest(self, now_seconds: float) -> None:
        """Each is twice as long as the one before, until a period was good."""
        base = self.out_pages + self.back_pages
        self.rests += 1
        self.reason = (
            f"left alone for {human_seconds(self._rest_seconds)}: {self.back_pages} of {base} zero pages came back, "
            f"or did not go, within {human_seconds(PERIOD_SECONDS)}"
        )
        self._rest_end = now_seconds + self._rest_seconds
        self._rest_seconds = min(LONGEST_REST_SECONDS, self._rest_seconds * 2)
        self._begin_period(self._rest_end)

    def _begin_period(self, at_seconds: float) -> None:
        self.back_pages = 0
        self._period_end = at_seconds + PERIOD_SECONDS
