"""What each kind of news brought, and for how long it is not heard after it brought nothing. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from ksmtuned_py.policy.boost import Boost

FRUITLESS_MAX_SECONDS = 3600.0


class NewsKind(StrEnum):
    """What news is about."""

    ARRIVAL = "arrival"
    UNMERGED = "unmerged"
    RETRY = "retry"
    SCARCE = "scarce"
    GROWTH = "growth"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsRecord:
    """What a kind of news brought."""

    wait_seconds: float = 0.0
    """How long it was not heard after its last boost; 0 means that the boost was worth it."""
    deaf_until_seconds: float = float("-inf")
    gained_bytes: int = 0
    cpu_seconds: float = 0.0
    """What the last boost gained, and the CPU time that it took."""

    def after(self, boost: Boost, seconds: float) -> "NewsRecord":
        """The record after one more boost for this kind of news, which is over now."""
        longer = max(2 * self.wait_seconds, seconds - boost.since_seconds)
        wait = min(longer, FRUITLESS_MAX_SECONDS) if boost.was_fruitless else 0.0
        return NewsRecord(
            wait_seconds=wait,
            deaf_until_seconds=seconds + wait,
            gained_bytes=boost.gained_bytes,
            cpu_seconds=boost.cpu_seconds,
        )
