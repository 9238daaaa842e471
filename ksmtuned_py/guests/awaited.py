"""Guests that are about to be switched off, for whom merging waits: for a moment, not for ever. PURE."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ksmtuned_py.model import Guest

Key = tuple[int, int]
MOST_SECONDS = 10.0
"""A switch takes 50 ms where QEMU answers; for what lasts longer nobody else's memory is to stay unmerged."""

ASKING_SECONDS = 3.0
"""A program asks for merging within a moment of its start, or never does."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """Since when each guest is to be switched off."""

    since_seconds: dict[Key, float] = field(default_factory=dict)
    now_seconds: float = 0.0

    def after(self, guests: Iterable[Guest], now_seconds: float) -> "Awaited":
        """One look later."""
        since = {guest.key: self.since_seconds.get(guest.key, now_seconds) for guest in guests if guest.merge is False}
        return Awaited(since, now_seconds)

    def marked(self, guests: Sequence[Guest]) -> tuple[Guest, ...]:
        """The guests, and of each whether merging had better wait for it."""
        return tuple(replace(guest, awaits_switch=True) if self._waits(guest) else guest for guest in guests)

    def _waits(self, guest: Guest) -> bool:
        if guest.merge is not False or guest.switched_off or guest.obstacles:
            return False
        silent = guest.ksm is not None and guest.ksm.mergeable is False
        most = ASKING_SECONDS if silent else MOST_SECONDS
        can_be_switched = guest.libvirt_age_seconds is not None or "tag" in guest.unknown
        return can_be_switched and self.now_seconds < self.since_seconds[guest.key] + most
