"""Reads the cgroup of each guest, and the room that is left there. A few guests are read anew at each look."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ksmtuned_py.door import Door
from ksmtuned_py.guests.cgroups import parse_cgroup, process_room_bytes
from ksmtuned_py.guests.patience import Patience, ask_one
from ksmtuned_py.guests.process import ProcessFiles
from ksmtuned_py.guests.slices import Slices
from ksmtuned_py.model import Guest, GuestKey, Slice

PER_LOOK = 10
"""Guests read at one look. One takes about 0.1 ms (measured with 4 levels of cgroups), so 500 take 50 looks."""
ANSWER_SECONDS = 1.0
YOUNG_LOOKS = 5
"""The looks at which a new guest is read. It is put into its cgroup only after it has started."""


@dataclass(frozen=True, slots=True)
class Place:
    """The cgroup of one guest, and the room that is left there."""

    cgroup: str | None = None
    """None = unknown, because the guest does not answer or the host has no unified tree."""
    room_bytes: int | None = None
    slice: Slice | None = None
    """The fullest slice that it shares with other guests."""
    looks: int = 0
    """The number of times that this place was read."""
    read_at: int = 0
    """The number of the look that read it last."""


class Places:
    """Remembers the place of each guest."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._patience = Patience()
        self._places: dict[GuestKey, Place] = {}
        self._slices = Slices(door)
        self._looks = 0

    def look(self, guests: Iterable[Guest]) -> dict[GuestKey, Place]:
        """The places of all guests. They are read anew for young guests, and for those whose turn it is."""
        self._looks += 1
        now = {guest.key: self._places.get(guest.key, Place()) for guest in guests}
        by_turn = sorted(now, key=lambda key: now[key].read_at)[:PER_LOOK]
        young = [key for key, place in now.items() if place.looks < YOUNG_LOOKS]
        turn = {key[0]: key for key in (*by_turn, *young)}
        processes = {pid: ProcessFiles(self._door, pid) for pid in turn}
        self._places = now | {key: replace(now[key], read_at=self._looks) for key in turn.values()}
        for pid, text in self._patience.ask(processes, lambda inside: inside.read("cgroup")).items():
            self._places[turn[pid]] = self._read(text or "", now[turn[pid]])
        shared = self._slices.shared([place.cgroup for place in self._places.values() if place.cgroup])
        if not shared:
            return self._places
        return {key: replace(place, slice=shared.get(place.cgroup or "")) for key, place in self._places.items()}

    def _read(self, text: str, place: Place) -> Place:
        cgroup, room_bytes = parse_cgroup(text), process_room_bytes(self._door, text)
        self._slices.read(cgroup or "")
        return Place(cgroup, room_bytes, looks=place.looks + 1, read_at=self._looks)


def rooms(door: Door) -> Callable[[Guest], int | None]:
    """Make a function that tells the bytes which a guest's cgroups leave it now; None = no limit.

    It may be called often, because it asks each guest for its cgroup only once.
    """
    known: dict[GuestKey, str | None] = {}

    def room_bytes(guest: Guest) -> int | None:
        if guest.key not in known:
            known[guest.key] = ask_one(
                ProcessFiles(door, guest.pid), lambda inside: inside.read("cgroup"), ANSWER_SECONDS
            )
        text = known[guest.key]
        return guest.room_bytes if text is None else process_room_bytes(door, text)

    return room_bytes
