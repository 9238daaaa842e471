"""Gives guests their huge pages back while ksmd rests: the cheapest first, and no more than memory allows.

It is judged by the host's available memory and by what the kernel's page flags say of each range. KSM's counters do not
notice when merged pages are given up, until ksmd scans. Then it would split again what was given back, so nothing is
given back while it does.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from ksmtuned_py.door import Door
from ksmtuned_py.errors import FAILED, KsmtunedError
from ksmtuned_py.guests.cgroups import limits
from ksmtuned_py.guests.hugepages import read_huge_pages
from ksmtuned_py.guests.places import rooms
from ksmtuned_py.host import Host
from ksmtuned_py.model import THP_DIRECTORY, Guest, Run
from ksmtuned_py.model.hugeplan import Portion, Survey, bound, together
from ksmtuned_py.model.room import limit_lack
from ksmtuned_py.undo.helper import Helper
from ksmtuned_py.units import MIB, human_bytes

PORTION_BYTES = 16 * MIB
"""The memory of the ranges of one portion, which takes some 60 ms. The next check of the room comes after it."""


@dataclass(eq=False)
class NotHuge(KsmtunedError):
    """The huge pages of a guest cannot be given back, or not be seen."""

    reason: str
    exit_code = FAILED
    template = "huge pages cannot be given back: {reason}"
    hint_template = "docs/huge-pages.md has what it needs"


class Pieces(Protocol):
    """Surveys one guest's ranges and gives them back in portions, as Collapsing does."""

    def survey(self) -> Survey:
        """The ranges at the beginning; raises NotHuge."""

    def go_on(self, bound: int, count: int) -> Portion:
        """Give back so many ranges with at most so many merged pages, those with the fewest first; raises NotHuge."""

    def close(self) -> None:
        """End it."""


class Collapsing:
    """Looks at one guest's ranges, and gives them back, in a child process. Nothing is changed before `go_on`."""

    def __init__(self, guest: Guest, progress: Callable[[str], None] = lambda _: None, share: float = 1.0) -> None:
        """Start the child, which takes at most such a share of a core; raises NotHuge.

        `progress` hears that the survey goes on.
        """
        looks = f"{guest.name}: its ranges are looked at ..."
        self._helper = Helper(
            "ksmtuned_py.undo.collapse", guest, lambda: progress(looks), NotHuge, NotHuge, [str(share)]
        )

    def survey(self) -> Survey:
        """The ranges at the beginning, to be called once, before all else; raises NotHuge."""
        said = json.loads(self._helper.answer())
        return Survey(**said | {"split": tuple(said["split"])})

    def go_on(self, bound: int, count: int) -> Portion:
        """Give back so many ranges with at most so many merged pages, those with the fewest first; raises NotHuge."""
        return Portion(**json.loads(self._helper.ask(f"{bound} {count}")))

    def close(self) -> None:
        """End the child wherever it is. What is given back stays so."""
        self._helper.close()


@dataclass(frozen=True)
class HugeWays:
    """The way to give huge pages back, and its limits."""

    host: Host
    pieces: Callable[[Guest], Pieces]
    comfort_bytes: int
    """The available memory below which nothing is given back."""
    limit_bytes: Callable[[Guest], int | None] = lambda guest: guest.room_bytes
    """Tells the bytes that a guest's cgroups leave it now; None = no limit."""
    called_off: Callable[[], bool] = lambda: False
    """Tells whether nobody wants it any more."""

    def room_pages(self) -> int:
        """The pages that may be given back now; negative when memory is below comfort."""
        return (self.host.memory().headroom_bytes - self.comfort_bytes) // self.host.backend.page_bytes


def survey(ways: HugeWays, guest: Guest) -> Survey:
    """Look at a guest's ranges, and change nothing; raises NotHuge."""
    with closing(ways.pieces(guest)) as pieces:
        return pieces.survey()


def planned(ways: HugeWays, surveys: Mapping[Guest, Survey]) -> int:
    """The most merged pages of a range that is given back, by what memory allows now; -1 when it allows nothing."""
    return bound(together(surveys.values()), ways.room_pages()) if surveys else -1


def give_huge_back(ways: HugeWays, guest: Guest, most: int) -> Iterator[Portion]:
    """Give back a guest's ranges with at most `most` merged pages, and yield what was done so far after each portion.

    The last one says in `problem` why there is no more, if memory or the guest is the reason. Raises NotHuge.
    """
    done = Portion()
    with closing(ways.pieces(guest)) as pieces:
        range_bytes = pieces.survey().range_pages * ways.host.backend.page_bytes
        count = max(1, PORTION_BYTES // range_bytes)
        needed_bytes = count * max(0, most) * ways.host.backend.page_bytes
        while done.more and not done.problem:
            if problem := obstacle(ways) or lack(ways, guest, needed_bytes, range_bytes):
                yield done.plus(Portion(problem=problem))
                return
            done = done.plus(pieces.go_on(most, count))
            yield done


def obstacle(ways: HugeWays) -> str | None:
    """Why nothing may be given back now; None when it may."""
    if ways.called_off():
        return "nobody wants it any more"
    if ways.host.backend.knobs().run == Run.MERGE:
        return "ksmd scans, and would split again what is given back"
    return None


def lack(ways: HugeWays, guest: Guest, needed_bytes: int, range_bytes: int) -> str | None:
    """What the host or the guest's cgroup lacks for a portion, as a sentence; None when both have the room.

    A new huge page is charged to the cgroup before the old pages are given up.
    """
    left_bytes = ways.host.memory().headroom_bytes - needed_bytes - range_bytes
    if left_bytes < ways.comfort_bytes:
        return f"available memory would fall below {human_bytes(ways.comfort_bytes)}"
    return limit_lack(needed_bytes + range_bytes, ways.limit_bytes(guest))


def kernel_refusal(door: Door) -> str | None:
    """Why this kernel makes no huge pages, as a sentence; None when it does."""
    settings = read_huge_pages(door)
    if not settings.size_bytes:
        return "this kernel has no transparent huge pages"
    return f"{door.path(THP_DIRECTORY)}/enabled is never" if settings.enabled == "never" else None


def roomy(door: Door) -> Callable[[Guest], int | None]:
    """Make a function that tells what a guest's cgroups leave it now, also below memory.high; None = no limit."""
    hard = rooms(door)

    def room_bytes(guest: Guest) -> int | None:
        soft = [limit.limit_bytes - limit.used_bytes for limit in limits(door, guest.cgroup)]
        return min((room for room in (hard(guest), *soft) if room is not None), default=None)

    return room_bytes


def huge_ways(
    door: Door, host: Host, comfort_bytes: int, progress: Callable[[str], None] = lambda _: None, share: float = 1.0
) -> HugeWays:
    """The way on this machine, as long as so much memory stays available, with at most such a share of a core."""
    pieces = partial(Collapsing, progress=progress, share=share)
    return HugeWays(host, pieces, comfort_bytes, limit_bytes=roomy(door))
