"""Draws the guests' table of a live screen, in as many columns and rows as it has room for. Pure."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from ksmtuned_py.cli.columns import padded
from ksmtuned_py.cli.guesttable import BY_HEADER, COLUMNS, GuestColumn
from ksmtuned_py.cli.live.strokes import DOWN, UP, fitted, tidy
from ksmtuned_py.cli.live.viewing import Viewing
from ksmtuned_py.model import Guest, Snapshot

GAP = 2
PREFERRED = ("GUEST", "PROFIT", "MERGED", "MEMORY", "MERGING", "HUGE", "PID", "ZERO", "TRACKED", "RECORDS", "GROUP")
"""The columns, those first that a narrow screen keeps."""
LEAST_NAME, MOST_NAME = 8, 40
LEAST_REASON = 7
SIZE = len("1023.9 MiB") - 1
PID = 7
HEADER_STYLE = "black on green"


def table_lines(
    now: Snapshot, guests: Sequence[Guest], viewing: Viewing, width: int, height: int, *, live: bool
) -> list[Text]:
    """The headers, and the guests around the chosen one."""
    if height < 1:
        return []
    widths = _widths(guests, viewing.sorted_by, width)
    at, rows = viewing.at(guests), height - 1
    first = min(max(0, at - rows // 2), max(0, len(guests) - rows))
    lines = [_headers(widths, viewing, width)]
    for place, guest in enumerate(guests[first : first + rows], first):
        cells = [(column, column.cell(guest, now.page_bytes)) for column in widths]
        lines.append(_line(cells, widths, width, is_chosen=live and place == at))
    if not guests:
        lines.append(Text("no guest passes the filter" if now.guests else "no guest runs", style="dim"))
    return lines[:height]


def _widths(guests: Sequence[Guest], sorted_by: str, width: int) -> dict[GuestColumn, int]:
    """The columns that fit, in their order, with their widths. The one that is sorted is always there."""
    names = max((cell_len(tidy(guest.name)) for guest in guests), default=0)
    groups = max((cell_len(tidy(guest.group)) for guest in guests), default=0)
    least = {"GUEST": min(max(LEAST_NAME, names), MOST_NAME, max(LEAST_NAME, width // 4)), "PID": PID}
    least |= {"GROUP": min(max(len("GROUP"), groups), MOST_NAME), "MERGING": LEAST_REASON}
    wanted = sorted(PREFERRED, key=lambda header: header not in {"GUEST", sorted_by})  # stable, so else as preferred
    left, chosen = width + GAP, set()  # the last column needs no gap
    for header in wanted:
        needs = least.get(header, SIZE) + GAP
        if needs <= left and not (header == "GROUP" and not groups and sorted_by != "GROUP"):
            chosen.add(header)
            left -= needs
    widths = {column: least.get(column.header, SIZE) for column in COLUMNS if column.header in chosen}
    for header, most in (("GUEST", min(names, MOST_NAME)), ("MERGING", width)):
        if header in chosen:
            more = min(left, max(0, most - widths[BY_HEADER[header]]))
            widths[BY_HEADER[header]] += more
            left -= more
    return widths


def _headers(widths: dict[GuestColumn, int], viewing: Viewing, width: int) -> Text:
    """The headers; an arrow in the gap says which column is sorted, and whether the largest is first."""
    line = Text(style=HEADER_STYLE)
    for column, places in widths.items():
        is_sorted = column.header == viewing.sorted_by
        arrow = (UP if viewing.reverse != column.is_text else DOWN) if is_sorted else " "
        header = fitted(column.header, min(places, len(column.header)))
        whole = f"{header}{arrow}" if column.is_text else f"{padded(header, places, left=column.is_text)}{arrow}"
        line.append(whole.ljust(places + GAP), style="bold" if is_sorted else "")
    line.truncate(width, pad=True)
    return line


def _line(cells: list[tuple[GuestColumn, str]], widths: dict[GuestColumn, int], width: int, *, is_chosen: bool) -> Text:
    line = Text(style="reverse" if is_chosen else "")
    for column, cell in cells:
        shown = fitted(cell, widths[column]).rstrip()
        line.append(padded(shown, widths[column], left=column.is_text), style="" if is_chosen else _style(column, cell))
        line.append(" " * GAP)
    line.truncate(width, pad=True)
    return line


def _style(column: GuestColumn, cell: str) -> str:
    if column.header == "PROFIT" and cell.startswith("-"):
        return "red"
    if column.header == "MERGING" and cell not in {"yes", "?"}:
        return "yellow"
    return ""
