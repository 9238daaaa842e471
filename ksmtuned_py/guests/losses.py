"""Guests whose merging costs the kernel more memory than it saves: counted over passes. PURE."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ksmtuned_py.model import Guest

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Losses:
    """For each guest, at the ends of how many passes in a row it was found losing.

    It loses when its records (ksm_rmap_items, 64 bytes each) are larger than what it merges: more than 64 for each
    page of 4 KiB, 1024 for each of 64 KiB.
    """

    passes: dict[Key, int] = field(default_factory=dict)
    full_scans: int | None = None

    def after(self, guests: Iterable[Guest], full_scans: int) -> "Losses":
        """One look later. The count of a guest that was switched off stays: it loses nothing now, but for that."""
        if full_scans == self.full_scans:
            return self
        counts = {guest.key: self._count(guest) for guest in guests}
        return Losses({key: count for key, count in counts.items() if count}, full_scans)

    def _count(self, guest: Guest) -> int:
        before = self.passes.get(guest.key, 0)
        if guest.switched_off or guest.ksm is None:
            return before
        return before + 1 if guest.ksm.profit_bytes < 0 else 0
