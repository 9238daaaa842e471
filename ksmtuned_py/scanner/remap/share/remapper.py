"""Shares equal pages of guests without KSM: many short stops, in each of which some runs of pages are exchanged."""

import sys
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial

import numpy as np

from ksmtuned_py.door import Door
from ksmtuned_py.guests.hugepages import read_huge_pages
from ksmtuned_py.scanner.pagemap import PAGE, PRIVATE, PRIVATE_SMALL, Kind
from ksmtuned_py.scanner.pages import Prints, contains
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.foothold.footholds import Footholds, Standing
from ksmtuned_py.scanner.remap.foothold.permits import refuse_forbidden
from ksmtuned_py.scanner.remap.foothold.session import Session
from ksmtuned_py.scanner.remap.refuse.eligibility import USUAL_MAPPINGS, Eligible, large, of_one_policy
from ksmtuned_py.scanner.remap.refuse.flags import eligible_now
from ksmtuned_py.scanner.remap.refuse.looks import look
from ksmtuned_py.scanner.remap.refuse.opened import Belongings
from ksmtuned_py.scanner.remap.refuse.sharers import Sharers
from ksmtuned_py.scanner.remap.share.exchange import readable, share
from ksmtuned_py.scanner.remap.share.giveback import give_back
from ksmtuned_py.scanner.remap.share.pace import Pace
from ksmtuned_py.scanner.remap.share.references import PAGES_PER_PROCESS, references
from ksmtuned_py.scanner.remap.share.runs import FOUND_PER_PAGE, PageRun, by_slab, plan, steady_prints
from ksmtuned_py.scanner.remap.share.store import Store
from ksmtuned_py.scanner.remap.share.stores import Stores
from ksmtuned_py.scanner.remap.share.whole import CutRange, able, cut_ranges, make_whole
from ksmtuned_py.scanner.remap.stop.stops import patiently
from ksmtuned_py.scanner.scanner import Watched
from ksmtuned_py.scanner.settings import ScanSettings
from ksmtuned_py.scanner.table import SLAB_BYTES
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.units import MIB

_TRIES, _AGAIN_SECONDS = 10, 0.05
"""How often, and how soon again, giving back is tried: a guest whose mappings change is refused only for now."""
_TURN_SECONDS = 10.0
"""How long one guest is given back until others have their turn: it may map more all the time, or be very large."""
_LOOK_SECONDS = 1.0
"""Seconds between two looks at every process of the host for merged pages, as long as nothing more is merged."""
_LOOK_WAITS = 20
"""A look also waits so many times as long as the last one took, on a host with thousands of processes."""


class Remapper:
    """The merger of the remap mode."""

    def __init__(self, door: Door, settings: ScanSettings) -> None:
        self._door = door
        self._settings = settings
        self._least_bytes = settings.remap_least_mib * MIB
        self._stores = Stores(door)
        self._pace = Pace(settings.stop_window_ms / 1000)
        self._footholds = Footholds(door, self._least_bytes, settings.stop_window_ms / 1000)
        self._stops = self._footholds.stops
        self.turn_seconds = _TURN_SECONDS
        self._next_look = 0.0
        self._looks = 0
        """How many looks at all processes have begun."""
        self._outdated = True
        """Whether something was merged or given back since the last look."""
        self.pages_shared = 0
        self.pages_sharing = 0

    def window_milliseconds(self) -> dict[str, float]:
        """How long guests were stopped, in ms (median, 99th percentile, longest of late), and how many stops failed."""
        if not self._stops.seconds:
            return {}
        p50, p99, longest = np.percentile(self._stops.seconds, (50, 99, 100)) * 1000
        return {
            "p50": float(p50),
            "p99": float(p99),
            "max": float(longest),
            "failed": self._stops.failed,
            "over": self._stops.over,
        }

    def merge(self, process: Process, watched: Watched, prints: Prints, *, split_huge: bool) -> Iterator[int]:
        """Shares the guest's steady pages with these prints; yields pages it worked on."""
        if self._stops.left_alone.is_due(process.target.pid):
            with self._footholds.own_trouble(process, watched.refuse):
                yield from self._merge(process, watched, prints, PRIVATE if split_huge else PRIVATE_SMALL)

    def _merge(self, process: Process, watched: Watched, prints: Prints, kind: Kind) -> Iterator[int]:
        self._stops.refuse_late(process.target.pid)
        belongings = look(self._door, process, self._least_bytes)
        watched.refusal = None
        if not (yield from self._is_worth_it(process, watched, prints)):
            return
        Sharers(self._door, process).check_all()
        yield PAGES_PER_PROCESS
        found, reason = yield from eligible_now(self._door, process, self._least_bytes)
        allowed, policy, other = of_one_policy(found)
        watched.refusal = reason or other
        store = yield from self._stores.of(process.target.group, policy)
        freed, runs = store.times_freed, list[PageRun]()
        for base, some in by_slab(allowed).items():
            for one in some if base in watched.table.slabs else ():
                runs += yield from plan(process, watched.table.slab(base), prints, store, one, kind)
        runs = self._affordable(process, runs)
        if runs:
            yield from self._exchange(process, belongings, store, freed, runs)

    def _is_worth_it(self, process: Process, watched: Watched, prints: Prints) -> Generator[int, None, bool]:
        """Whether the guest has pages that could be shared: reading smaps takes long, and keeps the guest waiting."""
        pieces = large(process.mappings(), self._least_bytes)
        known = [prints, *self._stores.known(process.target.group)]
        for slab in watched.table.slabs.values():
            for start, end in pieces:
                if start < slab.base + SLAB_BYTES and end > slab.base:
                    some = steady_prints(slab, start, end)
                    if any(contains(wanted, some).any() for wanted in known):
                        return True
                    yield 1 + len(known) * len(some) // FOUND_PER_PAGE
        return False

    def tend(self, guests: list[Target]) -> Iterator[int]:
        """Counts what all processes of the host share, and frees what nobody maps any more; yields work in pages."""
        yield from self._stores.take_over()
        due = time.monotonic() >= self._next_look
        if not due and not self._outdated:
            return
        self._outdated, begun_seconds = False, time.monotonic()
        look_number = self._looks = self._looks + 1
        self._footholds.keep(guest.key for guest in guests)
        stores = {inode: store for inode, store in self._stores.by_inode().items() if store.end}
        oldest_ticks = min((store.since_ticks for store in stores.values()), default=0)
        ends = {inode: store.end for inode, store in stores.items()}
        counts = yield from references(self._door, ends, oldest_ticks)
        if look_number != self._looks:  # another look has begun and ended since, because this one had to wait
            return
        self.pages_shared = sum(int(np.count_nonzero(found.readers)) for found in counts.values())
        self.pages_sharing = sum(int(found.readers.sum()) for found in counts.values()) - self.pages_shared
        if not due:
            return
        now_seconds = time.monotonic()
        self._next_look = now_seconds + max(_LOOK_SECONDS, _LOOK_WAITS * (now_seconds - begun_seconds))
        for inode, store in stores.items():
            for work in store.free_unused(counts[inode]) if counts[inode].certain else ():
                yield work
                if look_number != self._looks:
                    return

    def give_back(self, process: Process) -> Generator[int, None, str | None]:
        """Gives the guest its pages back as private memory; returns why some stay merged, or None."""
        self._outdated = True
        reasons: list[str | None] = [None]
        tries, least, until_seconds = _TRIES, sys.maxsize, time.monotonic() + self.turn_seconds
        while tries and (size := sum(mapping.size for mapping in process.mappings() if mapping.merged)):
            if not self._stops.left_alone.is_due(process.target.pid):
                return reasons[-1] or "it could not be stopped, and is left alone for some seconds"
            tries = _TRIES if size < least else tries - 1
            least = min(size, least)
            with self._footholds.own_trouble(process, reasons.append):
                if not (yield from self._give_back(process, until_seconds)):
                    return "it has much to be given back, and others have their turn"
                continue
            time.sleep(_AGAIN_SECONDS)
            yield 1
        return reasons[-1]

    def _give_back(self, process: Process, until_seconds: float) -> Generator[int, None, bool]:
        belongings, found, reason = yield from self._looked_at(process)
        merged = [one for one in found if one.mapping.merged]
        if not merged:
            raise Refused(reason or "its mappings have changed")
        session, standing = yield from self._ready(process, belongings, merged)
        return (yield from give_back(self._door, process, session, merged, standing, until_seconds))

    def cut(self, process: Process) -> list[int]:
        """Returns how many merged pages each range has of which pieces were cut off."""
        return [one.merged_pages for one in self._cut(process)]

    def make_whole(
        self, process: Process, most: int, may_go_on: Callable[[], bool], made: Callable[[int], None]
    ) -> Generator[int, None, str | None]:
        """Makes those with at most so many merged pages whole, those with the fewest first; yields work in pages.

        `made` hears of each how many pages that the host saved it took. Returns why others are not whole.
        """
        reasons, tried = list[str](), set[int]()
        more = True
        while more and not reasons and self._stops.left_alone.is_due(process.target.pid):
            with self._footholds.own_trouble(process, reasons.append):
                more = yield from self._make_whole(process, most, tried, may_go_on, made)
        return next(iter(reasons), None)

    def _make_whole(
        self,
        process: Process,
        most: int,
        tried: set[int],
        may_go_on: Callable[[], bool],
        made: Callable[[int], None],
    ) -> Generator[int, None, bool]:
        """Does it for one turn, for flags that were read long ago may have changed; returns whether to look again."""
        belongings, found, _ = yield from self._looked_at(process)
        wanted = [one for one in self._cut(process) if one.merged_pages <= most and one.address not in tried]
        ranges = sorted(able(wanted, found), key=lambda each: each[0].merged_pages)
        if not ranges or not may_go_on():
            return False
        self._outdated = True
        pieces = [piece for _, some in ranges for piece in some]
        session, standing = yield from self._ready(process, belongings, pieces)
        until_seconds = time.monotonic() + self.turn_seconds

        def in_time() -> Iterator[tuple[CutRange, list[Eligible]]]:
            for each in ranges:
                tried.add(each[0].address)
                yield each
                if time.monotonic() >= until_seconds or not may_go_on():
                    return

        yield from make_whole(self._door, process, session, in_time(), standing, most, made)
        return ranges[-1][0].address not in tried and may_go_on()

    def _cut(self, process: Process) -> list[CutRange]:
        """Returns them where huge pages are made for the guest, and the kernel tells that a page is one."""
        kernel = read_huge_pages(self._door)
        made = kernel.enabled != "never" and process.status().get("THP_enabled") != "0"
        return cut_ranges(process.mappings(), kernel.size_bytes) if made and process.tells_huge() else []

    def _looked_at(self, process: Process) -> Generator[int, None, tuple[Belongings, list[Eligible], str | None]]:
        """Looks at a guest before anything is given back to it; raises Refused."""
        self._stops.refuse_late(process.target.pid)
        belongings = look(self._door, process, self._least_bytes)
        Sharers(self._door, process).check_all()
        yield PAGES_PER_PROCESS
        found, reason = yield from eligible_now(self._door, process, PAGE)
        return belongings, found, reason

    def _ready(
        self, process: Process, belongings: Belongings, pieces: list[Eligible]
    ) -> Generator[int, None, tuple[Session, Standing]]:
        """Gets at a guest of which these pieces are to be replaced; raises Refused and Gone."""
        store = yield from self._stores.of(process.target.group, of_one_policy(pieces)[1])
        session = yield from self._footholds.session(process, store.readable, store.key)
        if any(one.policy for one in pieces):
            refuse_forbidden(session.permits.forbidden)
        wanted = [(one.mapping.start, one.mapping.end) for one in pieces]
        return session, (yield from self._footholds.prepared(process, belongings, session, wanted))

    def _affordable(self, process: Process, runs: list[PageRun]) -> list[PageRun]:
        """Returns the longest runs that leave the guest's mappings within their limit; each run can cost two."""
        limit = min(USUAL_MAPPINGS, int(self._door.read("proc/sys/vm/max_map_count")))
        most = limit * self._settings.mappings_percent / 100
        most_runs = max(0, int(most) - len(process.mappings())) // 2
        longest = sorted(runs, key=lambda run: run.pages, reverse=True)[:most_runs]
        return sorted(longest, key=lambda run: run.address)

    def _exchange(
        self,
        process: Process,
        belongings: Belongings,
        store: Store,
        freed: int,
        runs: list[PageRun],
    ) -> Iterator[int]:
        session = yield from self._footholds.session(process, store.readable, store.key)
        if runs[0].eligible.policy:
            refuse_forbidden(session.permits.forbidden)
        wanted = [(run.address, run.address + run.size) for run in runs]
        standing = yield from self._footholds.prepared(process, belongings, session, wanted)

        def exchange(some: list[PageRun]) -> None:
            """Exchanges these runs in one stop, unless pages of the store were freed since it was planned."""
            able, contents = readable(store, some if store.times_freed == freed else [])
            if not contents:
                return
            with standing() as window:
                begun_seconds = time.monotonic()
                try:
                    share(process, window, session, able, contents)
                finally:  # also when comparing took too long: the next ones have to be fewer
                    self._pace.took(some, time.monotonic() - begun_seconds - window.vain_seconds)

        for some in self._pace.portions(runs):
            self._outdated = True
            yield from patiently(self._stops, process.target.pid, partial(exchange, some))
            yield sum(run.pages for run in some)
