"""Counts over passes which guests' merging costs the kernel more memory than it saves. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from ksmtuned_py.model import Guest, GuestKey


@dataclass(frozen=True, slots=True)
class Losses:
    """Counts for each guest the passes in a row at whose ends it was losing.

    A guest loses when its records (ksm_rmap_items, 64 bytes each) take more memory than its merging saves. That is more
    than 64 records for each merged page of 4 KiB, and 1024 for each of 64 KiB.
    """

    passes: dict[GuestKey, int] = field(default_factory=dict)
    counted: dict[GuestKey, int] = field(default_factory=dict)
    """The value of full_scans at which each guest was counted last."""

    def after(self, guests: Iterable[Guest], fresh: Collection[GuestKey], full_scans: int) -> "Losses":
        """The counts after one more look at the guests.

        A guest is counted only when its account was read at this look, and once for each pass. The count of a guest
        that is switched off stays, because it stopped losing only by that.
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
