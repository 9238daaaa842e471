"""What decides whether passes over all memory are worth their CPU. Pure."""

from dataclasses import dataclass

from ksmtuned_py.policy.scanner import Pass
from ksmtuned_py.units import GIB, MIB

GROWTH_MIN_BYTES = 16 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What is known at one look."""

    passes_done: int
    price: float
    """CPU-seconds that a saved GiB may cost."""
    page_cost_seconds: float
    """What a page costs that is compared, as all are in a thorough pass; a cruise says nothing of that."""
    pass_cpu_seconds: float | None
    """What the last pass took, each; None = unknown."""
    pass_skipped_pages: int
    """How many it passed over."""
    ended: Pass | None
    """The last pass, if it was found to be over at this look."""
    scarce_since_seconds: float | None
    """When memory last became scarce; None = it is not."""
    retry: bool
    """The time for another try has come."""
    left_alone: bool = False
    """Memory is plenty, and nobody wants to hear of anything to merge."""
    short_in_seconds: float = 0.0
    """When it will be scarce, where that is only foreseen."""

    def worth_bytes(self, cpu_seconds: float) -> int:
        """Memory that would pay for so much CPU if all of it merged."""
        return max(GROWTH_MIN_BYTES, round(cpu_seconds / max(self.price, 1e-9) * GIB))
