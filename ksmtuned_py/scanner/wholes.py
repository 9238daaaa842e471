"""Has huge pages given back that remapping has cut, of all guests: those that save least first, while memory allows."""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from ksmtuned_py.door import Door
from ksmtuned_py.guests.hugepages import read_huge_pages
from ksmtuned_py.model.hugeplan import AGAIN_SECONDS, SHARE, Survey, bound, rest_after, together
from ksmtuned_py.scanner.pagemap import PAGE
from ksmtuned_py.scanner.process import Gone, Process
from ksmtuned_py.scanner.refusal import own_trouble
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.sensors.memory import read_memory


class Mender(Protocol):
    """Makes cut ranges whole. Only the remapper cuts any."""

    def cut(self, process: Process) -> list[int]:
        """Returns how many merged pages each range has of which pieces were cut off."""

    def make_whole(
        self, process: Process, most: int, may_go_on: Callable[[], bool], made: Callable[[int], None]
    ) -> Generator[int, None, str | None]:
        """Makes those with at most so many merged pages whole, those with the fewest first; yields work in pages.

        `made` hears of each how many pages that the host saved it took. Returns why others are not whole.
        """


class Wholes:
    """All rounds of one worker, and what came of them."""

    def __init__(self, door: Door, mender: Mender, at: Callable[[Target], AbstractContextManager[Process]]) -> None:
        """`at` opens a guest."""
        self._door = door
        self._mender = mender
        self._at = at
        self._range_pages = max(1, read_huge_pages(door).size_bytes // PAGE)
        self._above_bytes: int | None = None
        self._round: Generator[int, None, None] | None = None
        self._rest_seconds, self._not_before_seconds = AGAIN_SECONDS, 0.0
        self.given = 0
        self.paid_pages = 0
        self.cpu_seconds = 0.0
        self.problem: str | None = None

    def want(self, above_bytes: int | None) -> None:
        """Sets how much memory has to stay available; None ends a round at once, for nothing is to be given back."""
        self._above_bytes = above_bytes
        if above_bytes is None:
            self.end()

    def merged(self) -> None:
        """Notes that something merges: there will be more to be given back than there was."""
        self.end()
        self._rest_seconds, self._not_before_seconds = AGAIN_SECONDS, 0.0

    def end(self) -> None:
        """Ends a round. What was given back stays so."""
        if self._round is not None:
            self._round.close()
        self._round = None

    def go_on(self, guests: Iterable[Target]) -> float:
        """Does one step of a round that is due; returns for how long to rest then, and 0 when there is none."""
        if self._above_bytes is None:
            return 0.0
        if self._round is None and time.monotonic() >= self._not_before_seconds:
            self._round = self._steps([guest for guest in guests if guest.remap])
        if self._round is None:
            return 0.0
        begun_seconds = time.process_time()
        try:
            next(self._round)
        except StopIteration:
            self._round = None
        took_seconds = time.process_time() - begun_seconds
        self.cpu_seconds += took_seconds
        return took_seconds / SHARE - took_seconds

    def _steps(self, guests: list[Target]) -> Generator[int, None, None]:
        """Makes one round; yields the work of each step, in pages."""
        given, cut, self.problem = self.given, dict[Target, Survey](), None
        for guest in guests:
            if (seen := self._survey(guest)) is not None:
                cut[guest] = seen
            yield 1
        most = bound(together(cut.values()), self._room_pages()) if cut else -1
        for guest, seen in cut.items():
            if seen.ranges(most):
                yield from self._one(guest, most)
        self._rest_seconds = rest_after(self._rest_seconds, gave=self.given > given)
        self._not_before_seconds = time.monotonic() + self._rest_seconds

    def _survey(self, guest: Target) -> Survey | None:
        """Returns what is cut of a guest; None when nothing is, or nothing can be seen."""
        counts = Counter[int]()
        try:
            with own_trouble(lambda reason: self._failed(guest, reason)), self._at(guest) as process:
                counts = Counter(self._mender.cut(process))
        except Gone:
            return None
        split = tuple(counts[merged] for merged in range(max(counts) + 1)) if counts else ()
        return Survey(range_pages=self._range_pages, split=split) if counts else None

    def _one(self, guest: Target, most: int) -> Iterator[int]:
        try:
            with own_trouble(lambda reason: self._failed(guest, reason)), self._at(guest) as process:
                if reason := (yield from self._mender.make_whole(process, most, self._has_room, self._made)):
                    self._failed(guest, reason)
        except Gone:
            return

    def _made(self, paid_pages: int) -> None:
        self.given += 1
        self.paid_pages += paid_pages

    def _has_room(self) -> bool:
        return self._room_pages() > self._range_pages

    def _room_pages(self) -> int:
        if self._above_bytes is None:
            return -1
        return (read_memory(self._door).headroom_bytes - self._above_bytes) // PAGE

    def _failed(self, guest: Target, reason: str) -> None:
        self.problem = f"{guest.name}: {reason}"
