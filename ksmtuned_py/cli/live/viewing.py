"""Knows what the keys did: which page is open, what is sorted, filtered and chosen. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ksmtuned_py.cli.guesttable import COLUMNS, merging, ranked
from ksmtuned_py.model import Guest, GuestKey, Snapshot

Page = Literal["guests", "guest", "why", "help"]
HEADERS = tuple(column.header for column in COLUMNS)
LONGEST_FILTER = 60
OPENERS: dict[str, Page] = {"enter": "guest", "w": "why", "?": "help", "h": "help"}
STEPS = {"up": -1, "k": -1, "down": 1, "j": 1}
LEAPS = {"page up": -1, "page down": 1, " ": 1}
ENDS = {"home": -1, "g": -1, "end": 1, "G": 1}
MOVERS = STEPS.keys() | LEAPS.keys() | ENDS.keys()
SORTERS = {"<": -1, "left": -1, ">": 1, "right": 1, "s": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewing:
    """The state that keys change."""

    page: Page = "guests"
    sorted_by: str = "PROFIT"
    reverse: bool = False
    filter: str = ""
    is_typing: bool = False
    """The filter is being typed."""
    chosen: GuestKey | None = None
    """The guest under the bar; None = the first."""
    scrolled: int = 0
    """The lines above the first one shown, on a page that is not the guests'."""
    is_over: bool = False

    def shown(self, now: Snapshot) -> list[Guest]:
        """The guests that pass the filter, in their order."""
        word = self.filter.casefold()
        found = [guest for guest in now.guests if not word or word in _told(guest)]
        return ranked(found, self.sorted_by, now.page_bytes, reverse=self.reverse)

    def at(self, guests: Sequence[Guest]) -> int:
        """The place of the chosen guest among those; 0 when it is not there."""
        return next((place for place, guest in enumerate(guests) if guest.key == self.chosen), 0)

    def after(self, key: str, now: Snapshot, rows: int, lines: int) -> "Viewing":
        """The state after a key. The page has so many rows, and in all so many lines."""
        if self.is_typing:
            return self._after_typing(key)
        if key == "q":
            return replace(self, is_over=True)
        if key == "escape":
            return replace(self, page="guests", scrolled=0) if self.page != "guests" else replace(self, filter="")
        if key in OPENERS:
            return self._opened(OPENERS[key], now)
        if self.page != "guests":
            return replace(self, scrolled=_moved(key, self.scrolled, rows, max(1, lines - rows + 1)))
        return self._after_table_key(key, now, rows)

    def _opened(self, page: Page, now: Snapshot) -> "Viewing":
        """The state with a page open. Its key closes it again, and so does Enter on any."""
        if page == self.page or (page == "guest" and self.page != "guests"):
            return replace(self, page="guests", scrolled=0)
        if page == "guest":
            guests = self.shown(now)
            return replace(self, page=page, chosen=guests[self.at(guests)].key) if guests else self
        return replace(self, page=page, scrolled=0)

    def _after_table_key(self, key: str, now: Snapshot, rows: int) -> "Viewing":
        if key in SORTERS:
            place = HEADERS.index(self.sorted_by) + SORTERS[key]
            return replace(self, sorted_by=HEADERS[place % len(HEADERS)])
        if key == "r":
            return replace(self, reverse=not self.reverse)
        if key == "/":
            return replace(self, is_typing=True)
        guests = self.shown(now)
        if not guests or key not in MOVERS:
            return self
        return replace(self, chosen=guests[_moved(key, self.at(guests), rows, len(guests))].key)

    def _after_typing(self, key: str) -> "Viewing":
        if key == "enter":
            return replace(self, is_typing=False)
        if key == "escape":
            return replace(self, is_typing=False, filter="")
        if key == "backspace":
            return replace(self, filter=self.filter[:-1])
        if key == "erase":
            return replace(self, filter="")
        if len(key) == 1 and key.isprintable():
            return replace(self, filter=(self.filter + key)[:LONGEST_FILTER])
        return self


def _moved(key: str, place: int, rows: int, count: int) -> int:
    """The place among so many after a key; a page has so many rows."""
    step = STEPS.get(key, 0) + LEAPS.get(key, 0) * max(1, rows - 1) + ENDS.get(key, 0) * count
    return min(max(0, place + step), count - 1)


def _told(guest: Guest) -> str:
    """What a filter looks in."""
    words = (guest.name, *guest.aliases, guest.uuid, str(guest.pid), guest.kind, guest.group, merging(guest))
    return "\n".join(words).casefold()
