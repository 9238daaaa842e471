"""The lines of a live screen follow from what was seen, what the keys did, and the size."""

import re
from dataclasses import replace
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from ksmtuned_py.cli.live.past import Past
from ksmtuned_py.cli.live.picture import picture, rows_of
from ksmtuned_py.cli.live.sight import Sight
from ksmtuned_py.cli.live.strokes import in_ascii
from ksmtuned_py.cli.live.viewing import Page, Viewing
from ksmtuned_py.cli.tell import status_rows, why_lines
from ksmtuned_py.model import Guest, Knobs, Memory, Mode, Pressure, Stall
from ksmtuned_py.policy.capacity import Outlook
from ksmtuned_py.publish.decided import Change
from ksmtuned_py.units import GIB
from tests.support.reports import BARE, FULL, OUTLOOK
from tests.support.sights import MANY, guest, sight

SIZES = [(80, 24), (160, 50), (40, 10), (20, 5), (9, 3), (1, 1)]
NOTHING_MERGES = replace(BARE, backend="none", knobs=Knobs())
ENDLESS = Stall(avg10_percent=inf, avg60_percent=nan, avg300_percent=0, total_seconds=0)
INFINITE = Pressure(some=ENDLESS, full=ENDLESS)
WIDE = (guest("データベース", 3), guest("café", 2), guest("ascii", 1))
SIGHTS = {
    "full": sight(),
    "old kernel, no guests": sight(BARE),
    "500 guests": sight(guests=MANY),
    "wide names": sight(guests=WIDE),
    "no KSM": sight(NOTHING_MERGES),
    "first look": sight(looks=1),
    "trouble": replace(sight(), trouble="as it was: two\nlines\tof it"),
    "infinite": sight(scanner_cpu_seconds=inf, pressure=INFINITE, cpu_pressure=INFINITE),
    "problems": sight(problems=("/proc/zoneinfo: not there",) * 3),
}
KEYS = ["up", "down", "page down", "page up", "end", "s", "<", "r", "/", "g", "enter", "escape", "w", "?", "backspace"]


def shown(seen: Sight, viewing: Viewing | None = None, size: tuple[int, int] = (80, 24), *, live: bool = True) -> str:
    """The text of the screen."""
    return "\n".join(line.plain.rstrip() for line in picture(seen, viewing or Viewing(), *size, live=live))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("page", ["guests", "guest", "why", "help"])
def test_each_picture_fits_its_screen(page: Page, size: tuple[int, int]) -> None:
    width, height = size
    for name, seen in SIGHTS.items():
        guests = seen.status.snapshot.guests
        viewing = Viewing(page=page, chosen=guests[0].key if guests else None)
        for line in (lines := picture(seen, viewing, *size)):
            assert line.cell_len <= width, (name, line.plain)
            assert line.plain.isprintable()
            assert in_ascii(line).plain.isascii()
            assert in_ascii(line).cell_len == line.cell_len, line.plain
        assert len(lines) == height, name


@settings(max_examples=60)
@given(st.lists(st.sampled_from(KEYS), max_size=12), st.sampled_from(SIZES), st.sampled_from(sorted(SIGHTS)))
def test_whatever_keys_do_fits(keys: list[str], size: tuple[int, int], name: str) -> None:
    seen, viewing = SIGHTS[name], Viewing()
    for key in keys:
        viewing = viewing.after(key, seen.status.snapshot, *rows_of(seen, viewing, *size))
    lines = picture(seen, viewing, *size)
    assert len(lines) == size[1]
    assert max(line.cell_len for line in lines) <= size[0]


def test_one_glance_says_what_status_says() -> None:
    text = shown(sight(), size=(160, 50))
    (mode, reason), *rows = status_rows(sight().status)
    assert f"{mode.upper()}     {reason}" in text
    assert len(rows) > 8
    for name, value in rows:
        before = "0 a second; " if name == "copies" else ""
        assert name in {"guests", "knobs"} or f"{name:<12}{before}{value[:60]}" in text
    assert text.startswith("daemon 998, 1 s ago")


@pytest.mark.parametrize("guests", [sight().status.snapshot.guests, MANY], ids=["one guest", "500 guests"])
def test_how_many_more_guests_fit_is_told_once_it_is_known(guests: tuple[Guest, ...]) -> None:
    seen = sight(guests=guests)
    assert "\nfits " not in shown(seen)
    told = shown(expecting(seen, OUTLOOK))
    assert "\nfits        12 more guests; chance that memory runs out in 24 h: 0.4 %\n" in told
    full = shown(expecting(seen, replace(OUTLOOK, guests=0, chance_now=0.00001)))
    assert "\nfits        no more guests; chance that memory runs out in 24 h: below 0.01 %\n" in full


def expecting(seen: Sight, outlook: Outlook) -> Sight:
    """The same once it is known how many more guests fit."""
    totals = replace(seen.status.totals, capacity=outlook)
    return replace(seen, status=replace(seen.status, totals=totals))


@pytest.mark.parametrize("size", [(80, 24), (160, 50)], ids=str)
def test_the_figures_are_there_beside_500_guests(size: tuple[int, int]) -> None:
    text = shown(sight(guests=MANY), size=size)
    for row in ("saved", "debt", "memory", "huge pages", "copies", "ksmd", "stalled", "CPUs taken", "GUEST"):
        assert re.search(rf"^ ?{row} ", text, re.MULTILINE), row
    assert text.count("guest-") >= 10


def test_a_small_screen_has_the_mode_what_is_saved_and_some_guests() -> None:
    text = shown(sight(guests=MANY), size=(40, 10))
    assert "CRUISE" in text
    assert "saved " in text
    assert text.count("guest-") == 4
    tiny = shown(sight(guests=MANY), size=(20, 5)).splitlines()
    assert tiny[0].startswith("cruise: 1 GiB saved")
    assert "guest-500" in tiny[3]


def test_the_chosen_guest_is_always_in_sight() -> None:
    seen = sight(guests=MANY)
    for key, name in (("end", "guest-001"), ("home", "guest-500"), ("page down", "guest-491")):
        viewing = Viewing().after(key, seen.status.snapshot, *rows_of(seen, Viewing(), 80, 24))
        assert name in shown(seen, viewing)


def test_without_guests_it_says_so() -> None:
    assert "no guest runs" in shown(sight(BARE))
    assert "no guest passes the filter" in shown(sight(), Viewing(filter="zzz"))


def test_names_of_wide_characters_leave_the_columns_in_line() -> None:
    seen = sight(guests=WIDE)
    lines = shown(seen).splitlines()
    rows = [next(line for line in lines if line.startswith(guest.name)) for guest in WIDE]
    assert len({cell_len(row[: row.index(" MiB")]) for row in rows}) == 1


def test_a_name_that_looks_like_markup_is_only_a_name() -> None:
    seen = sight(guests=(guest("[red]:boom:[/]", 1),))
    assert "[red]:boom:[/]" in shown(seen)
    assert "[red]:boom:[/]" in shown(seen, Viewing(page="guest", chosen=seen.status.snapshot.guests[0].key))


def test_a_name_of_characters_without_width_takes_no_more_than_its_column() -> None:
    text = shown(sight(guests=(guest("a" + "\u0301" * 5000, 1),)))
    assert len(text) < 80 * 24 * 2
    assert "á" in text


def test_a_host_that_could_fall_is_red() -> None:
    lines = picture(sight(memory=Memory(total_bytes=GIB, available_bytes=GIB // 2)), Viewing(), 80, 24)
    debt = next(line for line in lines if line.plain.startswith("debt"))
    assert "1 GiB, but the host could find only 256 MiB" in debt.plain
    assert "bold red" in {str(span.style) for span in debt.spans}


def test_a_guest_without_room_for_its_copies_is_named() -> None:
    text = shown(sight(guests=(guest("web", 8, room_bytes=4096), guest("db", 9, room_bytes=GIB))), size=(160, 50))
    assert "web has no room for theirs below a limit" in text


def test_the_first_problem_is_shown_however_small_the_screen() -> None:
    assert "/proc/zoneinfo: not there (and 2 more: w)" in shown(SIGHTS["problems"])
    assert shown(SIGHTS["problems"]).count("zoneinfo") == 1
    assert "problem" in shown(SIGHTS["problems"], size=(40, 10))


def test_where_nobody_reads_keys_none_are_named() -> None:
    assert "q quit" in shown(sight())
    assert "q quit" not in shown(sight(), live=False)
    assert "host: 1 guest" in shown(sight(), live=False)


def test_a_failed_look_is_told_in_what_was_seen_last() -> None:
    assert shown(replace(sight(), trouble="as it was: no such file")).startswith("as it was: no such file")


def test_curves_need_two_looks() -> None:
    assert "▇" not in shown(sight(looks=1))
    assert "▇" in shown(sight(looks=2))


def test_copies_are_told_by_the_second_once_two_looks_say_so() -> None:
    first, second = FULL, replace(FULL, vmstat=replace(FULL.vmstat, cow_ksm=4044))
    later = replace(second, clock=replace(second.clock, monotonic_seconds=second.clock.monotonic_seconds + 2))
    past = Past().after(first)
    assert "\ncopies      44 merged pages were written to since boot" in shown(sight(looks=1))
    assert "\ncopies      2,000 a second; 44 merged pages" in shown(replace(sight(), past=past.after(later)))


def test_every_mode_has_a_colour() -> None:
    seen = sight()
    for mode in Mode:
        decision = replace(seen.status.decision, mode=mode)
        assert mode.upper() in shown(replace(seen, status=replace(seen.status, decision=decision)))


def test_why_is_the_same_as_the_verbs() -> None:
    text = shown(sight(), Viewing(page="why"), (160, 50))
    for line, _ in why_lines(sight().status):
        assert line in text


def test_the_rules_are_shown_where_there_is_room() -> None:
    assert "The rules (the winner is yield)" in shown(sight())
    assert "The rules (the winner is yield)" not in shown(sight(guests=MANY))


def test_why_has_what_was_decided_lately() -> None:
    seen = sight()
    change = Change(unix_seconds=0.0, mode=Mode.BOOST, rule="news", reason="a new guest: web")
    text = shown(replace(seen, status=replace(seen.status, decisions=(change,))), Viewing(page="why"), (80, 50))
    assert re.search(r"Lately:\n  \d\d:\d\d:00  boost: a new guest: web", text)


def test_a_guests_account_says_all_and_why() -> None:
    one = guest("web", 8, obstacles=("vfio",), cgroup="/machine.slice/web", room_bytes=4096, tag="gold", uuid="u-1")
    text = shown(sight(guests=(one,)), Viewing(page="guest", chosen=one.key), (160, 50))
    for word in ("a passed-through device pins its memory", "/machine.slice/web", "gold", "u-1", "25 % of its memory"):
        assert word in text
    assert "if it wrote to all that is merged: it needs 8 MiB" in text
    assert "This guest has ended." in shown(sight(), Viewing(page="guest", chosen=one.key))


@pytest.mark.parametrize("header", ["RECORDS", "GROUP", "TRACKED"])
def test_the_sorted_column_is_shown_on_a_narrow_screen(header: str) -> None:
    text = shown(sight(guests=MANY), Viewing(sorted_by=header), (40, 10))
    assert f"{header}▼" in text or f"{header}▲" in text
