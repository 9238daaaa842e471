"""The two trees of ksmd: which contents are merged by how many pages, and which wait for a partner. Pure."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ksmtuned_py.ksmdmodel.pages import Found
from ksmtuned_py.ksmdmodel.runs import Runs

ZERO_CONTENT = "zero"
"""The content whose pages use_zero_pages merges into the shared zero page."""


class Owner(Protocol):
    """Owns pages in the unstable tree."""

    @property
    def alive(self) -> bool:
        """Whether the owner's process is still there."""

    def found_partner(self, begin: int, end: int) -> None:
        """Notes that its pages from begin to end were merged with ones that came later."""


class Waiting(NamedTuple):
    """A row of pages in the unstable tree, in which content n has the owner's page `row + n`."""

    owner: Owner
    row: int
    pass_number: int


class ContentState(NamedTuple):
    """One content in the trees."""

    items: int = 0
    """Pages in the stable tree."""
    broken: int = 0
    """Pages in the stable tree that were written to since: they no longer map the merged page."""
    waiting: Waiting | None = None


class Weight(NamedTuple):
    """What one content adds to the counters."""

    shared: int
    items: int
    chains: int
    dups: int
    saved: int
    """Pages that are really saved now; the counters lag behind writes and ended processes."""


NOTHING = Weight(0, 0, 0, 0, 0)


def weigh(state: ContentState, limit: int) -> Weight:
    """Returns a content's share in the counters, with at most `limit` pages in a frame (max_page_sharing)."""
    frames, live = _frames(state.items, limit), state.items - state.broken
    chains = 1 if frames > 1 else 0
    return Weight(frames, state.items, chains, frames * chains, live - _frames(live, limit))


def _frames(items: int, limit: int) -> int:
    return -(-items // limit)


def free_places(state: ContentState, limit: int) -> int:
    """Returns how many more pages the merged pages of this content take."""
    # A frame whose pages are all gone takes nobody (mm/ksm.c: ksm_get_folio finds it stale).
    return _frames(state.items, limit) * limit - state.items if state.items > state.broken else 0


def has_partner(state: ContentState, pass_number: int) -> bool:
    """Whether a page of this content is in the unstable tree of this pass."""
    return state.waiting is not None and state.waiting.pass_number == pass_number and state.waiting.owner.alive


def joined(old: ContentState, rows: int, limit: int, waiting: Waiting) -> tuple[ContentState, bool]:
    """Returns a content after `rows` more pages of it came in turn, and whether the old waiting page was merged."""
    more = max(0, rows - free_places(old, limit))
    if not more:
        return old._replace(items=old.items + rows), False
    partner = has_partner(old, waiting.pass_number)
    pairing = more + partner
    alone = 1 if pairing % limit == 1 else 0  # the last to come starts a new frame, and so waits
    items = old.items + rows + partner - alone
    return ContentState(items, old.broken, waiting if alone else None), partner


@dataclass
class Trees:
    """All contents, and the sums of their counters."""

    max_page_sharing: int = 256
    pass_number: int = 0
    """Goes on counting where the kernel's counter is reset, because it only tells one unstable tree from the next."""
    unstable: int = 0
    """Pages in the unstable tree of this pass."""
    cow_breaks: int = 0
    contents: dict[str, "Content"] = field(default_factory=dict)
    total: Weight = NOTHING

    def content(self, name: str, distinct: int) -> "Content":
        """Returns the content of this name, with space for so many different pages."""
        content = self.contents.setdefault(name, Content(self, distinct))
        content.states.grow(distinct, ContentState())
        return content

    def begin_pass(self) -> None:
        """Drops the unstable tree."""
        self.pass_number += 1
        self.unstable = 0

    def forget_all(self) -> None:
        """Empties both trees."""
        for content in self.contents.values():
            content.states = Runs(content.states.length, ContentState())
        self.total = NOTHING
        self.unstable = 0


class Content:
    """Pages of different content in a row, of which guests have copies."""

    def __init__(self, trees: Trees, distinct: int) -> None:
        self.states = Runs(distinct, ContentState())
        self._trees = trees

    def outlook(self, index: int) -> tuple[int, Found]:
        """Returns the end of the contents that fare alike from here on, and what a page of them would find now."""
        end, state = self.states.at(index)
        if free_places(state, self._trees.max_page_sharing):
            return end, Found.JOIN
        return end, Found.PAIR if has_partner(state, self._trees.pass_number) else Found.UNSHARED

    def join(self, begin: int, end: int, rows: int, waiting: Waiting) -> list[tuple[int, int]]:
        """Adds `rows` pages of each of these contents to the trees; returns the contents whose last page waits."""
        waits = []
        for first, last, old in self.states.between(begin, end):
            new, partner = joined(old, rows, self._trees.max_page_sharing, waiting)
            self._put(first, last, old, new)
            if partner and old.waiting:
                old.waiting.owner.found_partner(old.waiting.row + first, old.waiting.row + last)
                self._trees.unstable -= last - first
            if new.waiting == waiting:
                waits.append((first, last))
                self._trees.unstable += last - first
        return waits

    def change(self, begin: int, end: int, *, items: int = 0, broken: int = 0) -> None:
        """Adds to what each of these contents has in the stable tree."""
        for first, last, old in self.states.between(begin, end):
            new = old._replace(items=old.items + items, broken=old.broken + broken)
            self._put(first, last, old, new)

    def _put(self, begin: int, end: int, old: ContentState, new: ContentState) -> None:
        limit, total = self._trees.max_page_sharing, self._trees.total
        before, after = weigh(old, limit), weigh(new, limit)
        self._trees.total = Weight(*(t + (a - b) * (end - begin) for t, a, b in zip(total, after, before, strict=True)))
        self.states.put(begin, end, new)
