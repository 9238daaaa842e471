"""Finds the guests that are about to be switched off, for whom merging waits a moment but not for ever. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ksmtuned_py.model import Guest, GuestKey

MOST_SECONDS = 10.0
"""The longest wait for a guest. A switch takes 50 ms where QEMU answers, and other guests want to merge."""

ASKING_SECONDS = 3.0
"""The longest wait for a guest that has not asked. A program asks shortly after its start, or never."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """Remembers since when each guest is to be switched off."""

    since_seconds: dict[GuestKey, float] = field(default_factory=dict)
    now_seconds: float = 0.0

    def after(self, guests: Iterable[Guest], now_seconds: float) -> "Awaited":
        """The times after one more look at the guests; `now_seconds` is monotonic."""
        since = {guest.key: self.since_seconds.get(guest.key, now_seconds) for guest in guests if guest.merge is False}
        return Awaited(since, now_seconds)

    def marked(self, guests: Sequence[Guest]) -> tuple[Guest, ...]:
        """The guests, each marked when merging had better wait for it."""
        return tuple(replace(guest, awaits_switch=True) if self._waits(guest) else guest for guest in guests)

    def _waits(self, guest: Guest) -> bool:
        if guest.merge is not False or guest.switched_off or guest.obstacles:
            return False
        silent = guest.ksm is not None and guest.ksm.mergeable is False
        most = ASKING_SECONDS if silent else MOST_SECONDS
        can_be_switched = guest.has_monitor or "tag" in guest.unknown
        return can_be_switched and self.now_seconds < self.since_seconds[guest.key] + most
