"""Reads how much of each guest's memory is in huge pages, one guest after the other, beside the ticks.

Reading smaps_rollup walks the guest's page tables: 70 ms for each GiB in pages of 4 KiB, 3 ms for one in
huge pages. Nobody waits for it. These looks have a budget of CPU time, so with much memory a round takes long.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from ksmtuned_py.door import Door
from ksmtuned_py.errors import Garbage
from ksmtuned_py.guests.patience import Errand
from ksmtuned_py.guests.process import Inside, ProcessFiles
from ksmtuned_py.guests.smaps import SMAPS_SECONDS, parse_rollup
from ksmtuned_py.model import Guest, GuestKey

SHARE = 0.001
"""The share of a core for these looks."""
FIRST_SECONDS = 0.5
"""The budget at the start, when nothing is known of any guest."""
AGAIN_SECONDS = 60.0
"""The least time between two looks at one guest that has not grown meanwhile."""
OUTGROWN = 1.25
"""A guest that has so many times the memory that it had at its last look is unknown again: it may all be huge pages."""
SILENT_MAX = 4
"""The most guests that may keep a thread waiting. Then nobody is asked until one of them answers."""


@dataclass(frozen=True, slots=True)
class _Read:
    """The answer of one guest, and the CPU time that it took."""

    huge_bytes: int | None
    seconds: float


@dataclass(slots=True)
class _Look:
    """One guest that is asked, by a descriptor of its own."""

    key: GuestKey
    process: ProcessFiles
    errand: Errand[_Read]
    began_seconds: float


class HugeLooks:
    """What is known of the guests' huge pages. It asks one guest at a time, the one that was asked longest ago."""

    def __init__(self, door: Door) -> None:
        self.spent_seconds = 0.0
        self._door = door
        self._known: dict[GuestKey, int] = {}
        self._resident_bytes: dict[GuestKey, int] = {}
        """What each guest had when it was asked."""
        self._asked_seconds: dict[GuestKey, float] = {}
        self._looks: list[_Look] = []
        self._began_seconds: float | None = None

    def look(self, guests: Collection[Guest], now_seconds: float) -> tuple[Guest, ...]:
        """The guests with what is known of their huge pages; `now_seconds` is monotonic. Never waits."""
        self._began_seconds = now_seconds if self._began_seconds is None else self._began_seconds
        sizes = {guest.key: guest.rss_bytes for guest in guests}
        self._forget(sizes)
        self._take()
        self._forget([key for key in sizes if sizes[key] <= self._resident_bytes.get(key, 0) * OUTGROWN])
        self._ask(sizes, now_seconds)
        known = self._known
        return tuple(replace(guest, huge_bytes=known[guest.key]) if guest.key in known else guest for guest in guests)

    def _forget(self, keys: Collection[GuestKey]) -> None:
        """Keep nothing but what is known of these."""
        for known in (self._known, self._asked_seconds, self._resident_bytes):
            for key in known.keys() - keys:
                del known[key]

    def _take(self) -> None:
        """Keep the answers that have come."""
        for look in [look for look in self._looks if not look.errand.on_its_way]:
            self._looks.remove(look)
            look.process.close()
            read = look.errand.answer
            self.spent_seconds += read.seconds if read else 0.0
            if read and read.huge_bytes is not None and look.key in self._asked_seconds:
                self._known[look.key] = read.huge_bytes

    def _ask(self, sizes: Mapping[GuestKey, int], now_seconds: float) -> None:
        """Begin to ask the next guest, if it is time, the last one has answered, and the budget allows it."""
        assert self._began_seconds is not None
        waited = [now_seconds - look.began_seconds for look in self._looks]
        earned = FIRST_SECONDS + (now_seconds - self._began_seconds) * SHARE
        if len(waited) >= SILENT_MAX or any(each < SMAPS_SECONDS for each in waited) or self.spent_seconds > earned:
            return
        if (key := self._next(sizes, now_seconds)) is not None:
            self._asked_seconds[key], self._resident_bytes[key] = now_seconds, sizes[key]
            if process := _opened(ProcessFiles(self._door, key.pid), key):
                self._looks.append(_Look(key, process, Errand(process, _read), now_seconds))

    def _next(self, keys: Iterable[GuestKey], now_seconds: float) -> GuestKey | None:
        asked = {look.key for look in self._looks}
        turn = [(self._asked_seconds.get(key, float("-inf")), key) for key in keys if key not in asked]
        seconds, key = min(turn, default=(now_seconds, None))
        return key if seconds <= now_seconds - AGAIN_SECONDS else None


def _opened(process: ProcessFiles, key: GuestKey) -> ProcessFiles | None:
    """The process with a descriptor on it; None when it is gone, or descriptors ran out."""
    with suppress(OSError, Garbage):
        process.hold()
        identity = process.identity()
        if identity is not None and identity.start_ticks == key.start_ticks:
            return process
    process.close()
    return None


def _read(inside: Inside) -> _Read:
    began = time.thread_time()
    text = inside.read("smaps_rollup")
    return _Read(parse_rollup(text) if text else None, time.thread_time() - began)
