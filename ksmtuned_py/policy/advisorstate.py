"""What the advisor policy remembers: passes since the kernel's advisor came on, and how long a pass is. Pure."""

from dataclasses import dataclass, replace

from ksmtuned_py.config import Config
from ksmtuned_py.model import AdvisorMode, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisorState:
    """The kernel's advisor as it was seen."""

    mode: AdvisorMode | None = None
    full_scans: int = 0
    passes: int | None = None
    """Done since we saw it come on; None while it is off, or when it was on before us."""
    pages_at_pass: int | None = None
    """The kernel's pages_scanned at the end of the last pass that we saw end."""
    pass_pages: float | None = None
    """Pages scanned in one pass, by the last that we saw whole ..."""
    guest_bytes: int = 0
    """... and the guests' memory at its end."""

    def after(self, now: Snapshot, _: Config) -> "AdvisorState":
        """The state after one more snapshot."""
        seen = replace(self, mode=now.knobs.advisor_mode, full_scans=now.counters.full_scans)
        if self.mode is None:
            return seen
        finished = now.counters.full_scans - self.full_scans
        finished = now.counters.full_scans if finished < 0 else finished  # run=2 reset it
        if now.knobs.advisor_mode == "none":
            seen = replace(seen, passes=None)
        elif self.mode == "none":
            seen = replace(seen, passes=0)
        elif self.passes is not None:
            seen = replace(seen, passes=self.passes + finished)
        return seen._with_pass(now, finished) if finished else seen

    def _with_pass(self, now: Snapshot, finished: int) -> "AdvisorState":
        scanned = now.counters.pages_scanned
        if scanned is None or self.pages_at_pass is None:
            return replace(self, pages_at_pass=scanned)
        return replace(
            self,
            pages_at_pass=scanned,
            pass_pages=max(0, scanned - self.pages_at_pass) / finished,
            guest_bytes=resident_bytes(now),
        )

    def next_pass_pages(self, now: Snapshot) -> float:
        """About what ksmd will scan in the next pass: as in the last, and all that the guests have grown by since."""
        if self.pass_pages is None:
            return resident_bytes(now) / now.page_bytes
        return self.pass_pages + max(0, resident_bytes(now) - self.guest_bytes) / now.page_bytes


def resident_bytes(now: Snapshot) -> int:
    """The guests' memory."""
    return sum(guest.rss_bytes for guest in now.guests)
