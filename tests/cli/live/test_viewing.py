"""Keys change what is sorted, filtered, chosen and open."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from ksmtuned_py.cli.guesttable import BY_HEADER, COLUMNS, ranked
from ksmtuned_py.cli.live.viewing import Viewing
from ksmtuned_py.model import Snapshot
from tests.support.reports import FULL
from tests.support.sights import guest

GUESTS = (
    guest("b", 2, group="y", aliases=("instance-7",)),
    guest("a", 3, group="x", huge_bytes=5, obstacles=("vfio",)),
    guest("c", 1, ksm=None, rss_bytes=1, uuid="4f"),
)
NOW = replace(FULL, guests=GUESTS)
ROWS, LINES = 10, 30


def pressed(keys: Iterable[str], viewing: Viewing | None = None, now: Snapshot = NOW) -> Viewing:
    """The state after some keys."""
    viewing = viewing or Viewing()
    for key in keys:
        viewing = viewing.after(key, now, ROWS, LINES)
    return viewing


def names(viewing: Viewing, now: Snapshot = NOW) -> str:
    """The names of the guests as they are shown."""
    return "".join(guest.name for guest in viewing.shown(now))


def test_the_largest_profit_is_first_and_what_is_not_known_is_last() -> None:
    assert names(Viewing()) == "abc"
    assert names(pressed("r")) == "bac"


@pytest.mark.parametrize("header", [column.header for column in COLUMNS])
def test_every_column_sorts_both_ways(header: str) -> None:
    column = BY_HEADER[header]
    there = [column.value(guest, 4096) for guest in ranked(GUESTS, header, 4096)]
    back = [column.value(guest, 4096) for guest in ranked(GUESTS, header, 4096, reverse=True)]
    known = [value for value in there if value is not None]
    assert known == sorted(known, reverse=not column.is_text)
    assert [value for value in back if value is not None] == known[::-1]
    assert there[len(known) :] == back[len(known) :] == [None] * (len(there) - len(known))


def test_keys_go_through_all_columns() -> None:
    assert pressed("s").sorted_by == "GROUP"
    assert pressed("<").sorted_by == "RECORDS"
    assert pressed(["right"] * len(COLUMNS)).sorted_by == "PROFIT"


def test_the_bar_moves_and_stays_within() -> None:
    assert pressed(["down"]).chosen == GUESTS[0].key
    assert pressed(["up"]).chosen == GUESTS[1].key
    assert pressed(["page down"]).chosen == pressed("G").chosen == GUESTS[2].key
    assert pressed(["end", "home"]).chosen == GUESTS[1].key


def test_the_bar_stays_on_its_guest_when_the_order_changes() -> None:
    viewing = pressed(["down", "r"])
    assert viewing.shown(NOW)[viewing.at(viewing.shown(NOW))].name == "b"


@pytest.mark.parametrize(
    ("text", "left"), [("INSTANCE-7", "b"), ("QEMU", "abc"), ("vfio", "a"), ("4f", "c"), ("1003", "a"), ("zz", "")]
)
def test_a_filter_looks_in_names_uuid_pid_and_reasons(text: str, left: str) -> None:
    viewing = pressed(["/", *text, "enter"])
    assert sorted(names(viewing)) == sorted(left)
    assert not viewing.is_typing


def test_what_is_typed_is_no_command() -> None:
    viewing = pressed("/qws")
    assert (viewing.filter, viewing.is_over, viewing.page) == ("qws", False, "guests")
    assert pressed(["backspace"], viewing).filter == "qw"
    assert pressed(["erase"], viewing).filter == ""
    assert pressed(["up", "redraw"], viewing) == viewing
    assert pressed(["escape"], viewing) == Viewing()
    assert len(pressed("/" + "x" * 999).filter) < 100


def test_escape_drops_a_filter() -> None:
    assert pressed(["/", "b", "enter", "escape"]).filter == ""


def test_pages_open_and_close() -> None:
    assert pressed(["enter"]).page == "guest"
    assert pressed(["enter"]).chosen == GUESTS[1].key
    for key, page in (("w", "why"), ("?", "help"), ("enter", "guest")):
        assert pressed([key]).page == page
        assert pressed([key, key]).page == pressed([key, "escape"]).page == pressed([key, "enter"]).page == "guests"
    assert pressed("w?").page == "help"


def test_enter_opens_nothing_where_there_is_no_guest() -> None:
    assert pressed(["enter"], now=replace(NOW, guests=())).page == "guests"
    assert pressed(["end", "down"], now=replace(NOW, guests=())).chosen is None


def test_a_page_scrolls_and_no_further_than_its_end() -> None:
    assert pressed(["w", "down", "down"]).scrolled == 2
    assert pressed(["w", "end"]).scrolled == LINES - ROWS
    assert pressed(["w", " ", "up"]).scrolled == ROWS - 2
    assert pressed(["w", "end", "escape", "w"]).scrolled == 0


def test_q_ends_it_on_every_page() -> None:
    assert pressed("q").is_over
    assert pressed("wq").is_over


def test_an_unknown_key_changes_nothing() -> None:
    assert pressed(["unknown", "redraw", "Z"]) == Viewing()
