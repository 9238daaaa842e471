"""How things develop from snapshot to snapshot: pure, and advanced every tick, whatever is decided."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Placeholder of the first commit; grows with the adaptive policy."""
