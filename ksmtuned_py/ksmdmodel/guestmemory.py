"""A guest's memory: groups of pages of one kind, each page with what ksmd knows of it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ksmtuned_py.ksmdmodel.contents import ZERO_CONTENT, Content, Trees, Waiting
from ksmtuned_py.ksmdmodel.pages import FREED, NEW, TO_TREES, Found, PagePlace, PageState
from ksmtuned_py.ksmdmodel.runs import Runs

NANOSECONDS = 1_000_000_000
MERGING = (Found.JOIN, Found.PAIR, Found.ZERO_PAGE)
ON_ZERO_PAGE = (PagePlace.ZEROED, PagePlace.ZERO, PagePlace.FREED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageGroup:
    """Pages of one kind, one after the other in a guest's memory."""

    pages: int
    content: str | None = None
    """Name of a content, of which page n is the same in every group; None when no page equals any other."""
    distinct: int | None = None
    """How many pages differ before the contents begin again; None when all do."""
    rewrites_per_second: float = 0.0
    """How often each page is written to, in turn: pages of a content keep it, others become new ones."""


def equal(content: str, pages: int, *, distinct: int | None = None, rewrites_per_second: float = 0.0) -> PageGroup:
    """Returns a group of pages that other guests (and, past `distinct`, the same guest) have, too."""
    return PageGroup(pages=pages, content=content, distinct=distinct, rewrites_per_second=rewrites_per_second)


def zero(pages: int, *, rewrites_per_second: float = 0.0) -> PageGroup:
    """Returns a group of pages full of zeroes."""
    return equal(ZERO_CONTENT, pages, distinct=1, rewrites_per_second=rewrites_per_second)


def unique(pages: int, *, rewrites_per_second: float = 0.0) -> PageGroup:
    """Returns a group of pages that nobody else has, rewritten or not."""
    return PageGroup(pages=pages, rewrites_per_second=rewrites_per_second)


class Splitting(Protocol):
    """The huge pages of a guest, to those who merge pages in them."""

    def alike_until(self, group: "Group", page: int) -> int:
        """Returns the end of the pages of which each may merge before any is freed by a split."""

    def splits_per_page(self, group: "Group", page: int) -> float:
        """Returns how many huge pages are split for each page of the group that merges from this one on."""

    def split(self, group: "Group", begin: int, end: int) -> None:
        """Splitting what holds pages that were merged."""


@dataclass(eq=False)
class GuestMemory:
    """One process that ksmd scans."""

    name: str
    pid: int
    start_ticks: int
    alive: bool = True
    groups: list["Group"] = field(default_factory=list)
    counts: list[int] = field(default_factory=lambda: [0] * len(PagePlace))
    """The number of pages in each Place."""
    huge: Splitting | None = None
    """None where its memory is in small pages."""

    @property
    def pages(self) -> int:
        """The number of its pages."""
        return sum(self.counts)

    @property
    def rmap_items(self) -> int:
        """The number of rmap items that ksmd keeps for it."""
        counts = self.counts  # asked for each guest several times a tick, and so not in a loop
        return sum(counts) - counts[PagePlace.NEW] - counts[PagePlace.ZERO] - counts[PagePlace.FREED]

    def unseen_breaks(self, now_ns: int) -> tuple[int, int]:
        """Returns how many merged pages, and pages on the zero page, it wrote to that ksmd has not seen yet."""
        merged = zeroed = 0
        for group in self.groups:
            if group.breakable:  # few are
                of_group = group.unseen_breaks(now_ns)
                merged, zeroed = merged + of_group[0], zeroed + of_group[1]
        return merged, zeroed

    def end(self) -> None:
        """Ends the process: its memory is free at once, while the counters wait for ksmd."""
        self.alive = False
        for group in self.groups:
            group.end()

    def drop(self) -> None:
        """Drops what ksmd keeps for the process, when ksmd comes by after its end."""
        for group in self.groups:
            group.forget_broken()


class Group:
    """A PageGroup of one guest, as ksmd sees it."""

    def __init__(self, guest: GuestMemory, spec: PageGroup, trees: Trees, begun_ns: int) -> None:
        self.spec = spec
        self.pages: Runs[PageState] = Runs(spec.pages, NEW)
        self.distinct = spec.distinct or spec.pages
        self.content: Content | None = trees.content(spec.content, self.distinct) if spec.content else None
        self.breakable = bool(spec.content and spec.rewrites_per_second)
        """Whether its pages can be merged and then written to; most hosts of 500 guests have few such groups."""
        self._guest = guest
        self._trees = trees
        self._begun_ns = begun_ns
        self._written = 0
        guest.counts[PagePlace.NEW] += spec.pages

    @property
    def alive(self) -> bool:
        """Whether the guest's process is still there."""
        return self._guest.alive

    def outlook(self, page: int, end: int, *, use_zero_pages: bool) -> tuple[int, Found]:
        """Returns the end of the pages that find the same in the trees, and what they find there."""
        if self._guest.huge:
            end = min(end, self._guest.huge.alike_until(self, page))
        if self.content is None:
            return end, Found.UNSHARED
        if use_zero_pages and self.spec.content == ZERO_CONTENT:
            return end, Found.ZERO_PAGE
        if self.distinct < self.spec.pages:
            return end, Found.JOIN  # all pages of a content but the first one or two join
        same, found = self.content.outlook(page)
        return min(end, same), found

    def splits_per_page(self, page: int, found: Found) -> float:
        """Returns how many huge pages each page splits that finds this in the trees; a pair lies in two."""
        if self._guest.huge is None or found not in MERGING:
            return 0.0
        return self._guest.huge.splits_per_page(self, page) * (2 if found is Found.PAIR else 1)

    def put(self, begin: int, end: int, state: PageState) -> None:
        """Gives pages a state, and keeps the guest's account."""
        for first, last, old in self.pages.between(begin, end):
            self._guest.counts[old.place] -= last - first
        self._guest.counts[state.place] += end - begin
        self.pages.put(begin, end, state)

    def visit(self, begin: int, end: int, found: Found, state: PageState) -> None:
        """Applies what ksmd does as it comes by pages that are all alike: `found` and `state` are what it saw."""
        if found is Found.MERGED:
            return
        if self.pages.at(begin)[1].place is PagePlace.BROKEN:
            self._change(begin, end, items=-1, broken=-1)
        if found is Found.ZERO_PAGE:
            self.put(begin, end, state._replace(place=PagePlace.ZEROED))
            self._split(begin, end)
        elif found not in TO_TREES:
            self.put(begin, end, state)
        elif self.content is None:
            self.put(begin, end, state._replace(place=PagePlace.UNSTABLE))
            self._trees.unstable += end - begin
        else:
            self._join(self.content, begin, end, state)

    def found_partner(self, begin: int, end: int) -> None:
        """Notes that pages in the unstable tree were merged with ones that came later."""
        for first, last, state in self.pages.between(begin, end):
            self.put(first, last, state._replace(place=PagePlace.STABLE))
        self._split(begin, end)

    def free(self, begin: int, end: int) -> None:
        """Frees zero pages whose huge page was split: all but those that are merged or wait for a partner."""
        for first, last, state in self.pages.between(begin, end):
            if state.place in (PagePlace.NEW, PagePlace.VOLATILE):
                self.put(first, last, FREED)

    def write_until(self, now_ns: int) -> None:
        """Takes in what the guest wrote until then; when it wrote between two visits makes no difference."""
        for begin, end in self._unseen_writes(now_ns):
            self._trees.cow_breaks += self.break_merged(begin, end)
            self._rewrite(begin, end)
        self._written = self._writes(now_ns)

    def unseen_breaks(self, now_ns: int) -> tuple[int, int]:
        """Returns how many merged pages, and pages on the zero page, were written to since `write_until`."""
        merged = zeroed = 0
        for begin, end in self._unseen_writes(now_ns):
            for first, last, state in self.pages.between(begin, end):
                merged += (last - first) * (state.place is PagePlace.STABLE)
                zeroed += (last - first) * (state.place in (PagePlace.ZEROED, PagePlace.ZERO))
        return merged, zeroed

    def break_merged(self, begin: int, end: int) -> int:
        """Gives merged pages copies of their own; returns how many there were."""
        broken = 0
        for first, last, state in self.pages.between(begin, end):
            if state.place is PagePlace.STABLE:
                self._change(first, last, broken=1)
                self.put(first, last, state._replace(place=PagePlace.BROKEN))
                broken += last - first
        return broken

    def end(self) -> None:
        """Ends the group's process: it maps neither merged pages nor the zero page any more."""
        self.break_merged(0, self.spec.pages)
        for first, last, state in self.pages.between(0, self.spec.pages):
            if state.place in (PagePlace.ZERO, PagePlace.FREED):
                self.put(first, last, NEW)
            elif state.place is PagePlace.ZEROED:
                self.put(first, last, state._replace(place=PagePlace.VOLATILE))

    def forget_broken(self) -> None:
        """Takes broken pages out of the stable tree."""
        for first, last, state in self.pages.between(0, self.spec.pages):
            if state.place is PagePlace.BROKEN:
                self._change(first, last, items=-1, broken=-1)

    def forget_all(self) -> None:
        """Makes every page as if ksmd had never come by, but for those that a split freed."""
        for first, last, state in self.pages.between(0, self.spec.pages):
            if state.place is not PagePlace.FREED:
                self.put(first, last, NEW)

    def _rewrite(self, begin: int, end: int) -> None:
        for first, last, state in self.pages.between(begin, end):
            if state.place in ON_ZERO_PAGE:
                self.put(first, last, NEW)
            elif self.content is None:
                self.put(first, last, state._replace(known=False))

    def _join(self, content: Content, begin: int, end: int, state: PageState) -> None:
        self.put(begin, end, state._replace(place=PagePlace.STABLE))
        for row, first, last, rows in _windows(begin, end, self.distinct):
            last_row = row + (rows - 1) * self.distinct
            waiting = Waiting(self, last_row, self._trees.pass_number)
            for low, high in content.join(first, last, rows, waiting):
                self.put(last_row + low, last_row + high, state._replace(place=PagePlace.UNSTABLE))
        for first, last, now in self.pages.between(begin, end) if self._guest.huge else ():
            if now.place is PagePlace.STABLE:
                self._split(first, last)

    def _split(self, begin: int, end: int) -> None:
        if self._guest.huge:
            self._guest.huge.split(self, begin, end)

    def _change(self, begin: int, end: int, *, items: int = 0, broken: int = 0) -> None:
        assert self.content is not None  # only pages of a content are merged
        for _, first, last, rows in _windows(begin, end, self.distinct):
            self.content.change(first, last, items=items * rows, broken=broken * rows)

    def _writes(self, now_ns: int) -> int:
        per_million_seconds = round(self.spec.rewrites_per_second * self.spec.pages * 1_000_000)
        return (now_ns - self._begun_ns) * per_million_seconds // (NANOSECONDS * 1_000_000)

    def _unseen_writes(self, now_ns: int) -> list[tuple[int, int]]:
        pages, writes = self.spec.pages, self._writes(now_ns) - self._written
        if writes <= 0:
            return []
        begin = self._written % pages
        end = begin + min(writes, pages)
        return [(begin, end)] if end <= pages else [(begin, pages), (0, end - pages)]


def _windows(begin: int, end: int, distinct: int) -> Iterator[tuple[int, int, int, int]]:
    """Cuts pages into at most three of (page of content 0 in the first row, first content, last content, rows)."""
    row, column = divmod(begin, distinct)
    if column:
        until = min(end, (row + 1) * distinct)
        yield row * distinct, column, until - row * distinct, 1
        begin = until
    rows = (end - begin) // distinct
    if rows > 0:
        yield begin, 0, distinct, rows
        begin += rows * distinct
    if begin < end:
        yield begin, 0, end - begin, 1
