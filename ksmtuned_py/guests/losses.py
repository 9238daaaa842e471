"""Guests whose merging costs the kernel more memory than it saves: counted over passes. PURE."""

from collections.abc import Collection, Iterable
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
    counted: dict[Key, int] = field(default_factory=dict)
    """The full_scans at which each was counted last."""

    def after(self, guests: Iterable[Guest], fresh: Collection[Key], full_scans: int) -> "Losses":
        """One look later. Whoever's account was not read at it, or not since the last pass, is not counted again.

        The count of a guest that was switched off stays: it loses nothing now, but for that.
        """
        known = list(guests)
        new = [guest for guest in known if guest.key in fresh and self.counted.get(guest.key) != full_scans]
        passes = {guest.key: self.passes[guest.key] for guest in known if guest.key in self.passes}
        counted = {guest.key: self.counted[guest.key] for guest in known if guest.key in self.counted}
        passes |= {guest.key: self._count(guest) for guest in new}
        counted |= {guest.key: full_scans for guest in new}
        return Losses({key: count for key, count in passes.items() if count}, counted)

    def _count(self, guest: Guest) -> int:
        before = self.passes.get(guest.key, 0)
        if guest.switched_off or guest.ksm is None:
            return before
        return before + 1 if guest.ksm.profit_bytes < 0 else 0
