"""The guests with all that is known of them: from the kernel, from libvirt, and from the admin's rules."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from ksmtuned_py.config import Guests, InForce
from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.guests.domains import View
from ksmtuned_py.guests.losses import Losses
from ksmtuned_py.guests.names import placed, renamed, told_apart
from ksmtuned_py.guests.places import Place, Places
from ksmtuned_py.guests.rules import Key, enrolled_group, grouped, ruled
from ksmtuned_py.model import KSM_DIRECTORY, Guest

STALE_SECONDS = 30.0
"""What libvirt said is this old before anybody is told: a restart takes less."""


class Finder(Protocol):
    """Finds the guests among the processes."""

    @property
    def suspects(self) -> tuple[str, ...]:
        """Programs seen running that are known to write KSM's knobs."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong at the last look, as sentences."""

    def find(self, now_seconds: float) -> tuple[Guest, ...]:
        """The guests by PID."""

    def heed(self, pids: Iterable[int]) -> bool:
        """Whether programs that started matter."""

    def let_go(self) -> None:
        """Close the descriptors on the guests, as long as nobody looks."""


class Link(Protocol):
    """Tells of libvirt's domains."""

    view: View


class Roster:
    """A finder that knows more."""

    def __init__(self, door: Door, finder: Finder, in_force: InForce, link: Link | None = None) -> None:
        self._in_force = in_force
        self.switched_off: frozenset[Key] = frozenset()
        """Guests whose memory was taken out of merging; told by whoever does that."""
        self._door = door
        self._finder = finder
        self._link = link
        self._places = Places(door)
        self._losses = Losses()
        self._enrolled: str | None = None
        self._libvirt_problem = ""

    @property
    def settings(self) -> Guests:
        """The rules in force."""
        return self._in_force.config.guests

    @property
    def suspects(self) -> tuple[str, ...]:
        """Programs seen running that are known to write KSM's knobs."""
        return self._finder.suspects

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong at the last look, as sentences."""
        return (*self._finder.problems, *filter(None, [self._libvirt_problem]))

    def heed(self, pids: Iterable[int]) -> bool:
        """Whether programs that started matter."""
        return self._finder.heed(pids)

    def let_go(self) -> None:
        """Close the descriptors on the guests, as long as nobody looks."""
        self._finder.let_go()

    def find(self, now_seconds: float) -> tuple[Guest, ...]:
        """The guests by PID; `now_seconds` is monotonic."""
        found = self._finder.find(now_seconds)
        view = self._link.view if self._link else None
        self._libvirt_problem = _problem(view, now_seconds)
        places = self._places.look(found)
        guests = told_apart(self._known(guest, places[guest.key], view, now_seconds) for guest in found)
        self._losses = self._losses.after(guests, self._full_scans())
        return ruled(guests, self.settings, self._enroll(guests), self._losses.passes)

    def _known(self, guest: Guest, place: Place, view: View | None, now_seconds: float) -> Guest:
        off = guest.key in self.switched_off
        domain = view.domains.get(guest.uuid) if view else None
        seen = replace(placed(guest, place.cgroup), room_bytes=place.room_bytes, switched_off=off)
        if view is None or domain is None or view.at_seconds is None:
            return seen
        return replace(
            renamed(seen, domain.name, domain.aliases),
            tag=domain.tag,
            obstacles=domain.obstacles,
            libvirt_age_seconds=max(0.0, now_seconds - view.at_seconds),
        )

    def _enroll(self, guests: Sequence[Guest]) -> str:
        if self.settings.isolation != "groups":
            self._enrolled = None
            return ""
        self._enrolled = enrolled_group(grouped(guests, self.settings), self.settings, self._enrolled)
        return self._enrolled

    def _full_scans(self) -> int:
        with suppress(KsmtunedError):
            return self._door.read_int(f"{KSM_DIRECTORY}/full_scans") or 0
        return 0


def _problem(view: View | None, now_seconds: float) -> str:
    if view is None or not view.problem or (not view.domains and view.at_seconds is not None):
        return ""
    if view.at_seconds is not None and now_seconds - view.at_seconds < STALE_SECONDS:
        return ""
    return f"libvirt does not answer, what it last said still counts: {view.problem}"
