"""What ksmd keeps for a page, and what it finds when it comes to one (mm/ksm.c, Linux 6.12). Pure."""

from enum import Enum, IntEnum, auto
from functools import cache
from typing import NamedTuple

AGE_OF_FIRST_SKIP = 3
AGE_MAX = 255


class PagePlace(IntEnum):
    """Where a page stands with ksmd."""

    NEW = 0
    """Never scanned, so it has no rmap item."""
    VOLATILE = 1
    """In no tree, because it was seen once, changed, or skipped."""
    UNSTABLE = 2
    """Counted as unshared: in the unstable tree, or left from the tree of the pass before."""
    STABLE = 3
    BROKEN = 4
    """Was merged, and written to since or its process has ended; the counters lag until ksmd comes by."""
    ZEROED = 5
    """Mapped to the zero page; its rmap item is freed when ksmd comes by."""
    ZERO = 6
    """Mapped to the zero page, without an rmap item; ksmd walks over it."""
    FREED = 7
    """Mapped to the zero page by a split of its huge page, which no counter shows; ksmd walks over it."""


class PageState(NamedTuple):
    """One page's rmap item."""

    place: PagePlace
    known: bool
    """Whether the checksum that is kept is that of the content now."""
    age: int
    skips: int
    """How many further scans smart_scan will skip it."""


NEW = PageState(PagePlace.NEW, known=False, age=0, skips=0)
FREED = PageState(PagePlace.FREED, known=False, age=0, skips=0)
ZERO = PageState(PagePlace.ZERO, known=False, age=0, skips=0)


class Found(Enum):
    """What ksmd finds at a page; each kind has its price."""

    ABSENT = auto()
    SKIPPED = auto()
    MERGED = auto()
    FIRST = auto()
    CHANGED = auto()
    READY = auto()
    """Has the same checksum as before, and so becomes one of the following."""
    ZERO_PAGE = auto()
    """Goes to the shared zero page."""
    JOIN = auto()
    """Joins a merged page."""
    PAIR = auto()
    """Finds its partner in the unstable tree."""
    UNSHARED = auto()
    """Finds no partner and goes to the unstable tree."""


NOT_COUNTED = frozenset({Found.ABSENT, Found.SKIPPED})
"""ksmd walks on without taking these from its batch of pages_to_scan."""

TO_TREES = frozenset({Found.JOIN, Found.PAIR, Found.UNSHARED})


@cache
def scanned(state: PageState, smart_scan: bool) -> tuple[Found, PageState]:
    """Returns what ksmd finds, and the page's state before any tree is searched."""
    match state.place:
        case PagePlace.ZEROED | PagePlace.ZERO:
            return Found.ABSENT, ZERO
        case PagePlace.FREED:
            return Found.ABSENT, state
        case PagePlace.STABLE:
            return Found.MERGED, state
        case _:
            return _scan_unmerged(state, smart_scan)


def _scan_unmerged(state: PageState, smart_scan: bool) -> tuple[Found, PageState]:
    first = state.place is PagePlace.NEW
    skip, state = _aged(state) if smart_scan else (False, state)
    state = state._replace(place=PagePlace.VOLATILE)
    if skip:
        return Found.SKIPPED, state
    if state.known:
        return Found.READY, state
    return Found.FIRST if first else Found.CHANGED, state._replace(known=True)


def _aged(state: PageState) -> tuple[bool, PageState]:
    """Returns whether smart_scan skips the page in this scan, and the page one scan older."""
    older = state._replace(age=min(state.age + 1, AGE_MAX))
    if state.age < AGE_OF_FIRST_SKIP:
        return False, older
    if not state.skips:
        return False, older._replace(skips=_skips_at(state.age))
    return True, older._replace(skips=state.skips - 1)


def _skips_at(age: int) -> int:
    if age <= AGE_OF_FIRST_SKIP:
        return 1
    if age <= 5:
        return 2
    return 4 if age <= 8 else 8
