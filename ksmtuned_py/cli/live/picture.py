"""Makes the lines of a live screen. They follow from what was seen, what the keys did, and the size alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from ksmtuned_py.cli.guesttable import short_of_room
from ksmtuned_py.cli.live.pages import page_lines, rules
from ksmtuned_py.cli.live.past import Reading
from ksmtuned_py.cli.live.sight import Sight
from ksmtuned_py.cli.live.strokes import bar, curve, fitted, wrapped
from ksmtuned_py.cli.live.table import table_lines
from ksmtuned_py.cli.live.viewing import Viewing
from ksmtuned_py.cli.tell import status_rows
from ksmtuned_py.model import Mode, Snapshot
from ksmtuned_py.model.room import could_find_bytes

LABEL_WIDTH, NARROW_LABEL_WIDTH = 12, 8
LEAST_WIDTH = 50
"""The width from which on the line on who says it has its PID and age, and rows have curves."""
LEAST_TABLE_ROWS, LEAST_RULES = 3, 3
MODE_STYLES = {
    Mode.OFF: "yellow",
    Mode.BOOST: "magenta",
    Mode.CRUISE: "green",
    Mode.REST: "cyan",
    Mode.PINNED: "blue",
    Mode.HELD: "red",
}
ELSEWHERE = frozenset({"guests", "knobs", "problem"})
"""Rows of a status that stand elsewhere here: at the foot, on the page of `why`, and at the end of the rows."""
KEYS = (
    ("q", "quit"),
    ("s", "sort"),
    ("r", "reverse"),
    ("/", "filter"),
    ("Enter", "guest"),
    ("w", "why"),
    ("?", "help"),
)
"""The keys at the foot; a narrow screen has the first ones."""
PAGE_KEYS = (("q", "quit"), ("Esc", "back"), ("↑↓", "scroll"))


@dataclass(frozen=True, slots=True)
class Curve:
    """What is drawn beside a row."""

    value: Callable[[Reading], float | None]
    least_top: float
    style: str


CURVES = {
    "saved": Curve(lambda reading: reading.saved_bytes, 1.0, "green"),
    "copies": Curve(lambda reading: reading.copies_a_second, 10.0, "magenta"),
    "ksmd": Curve(lambda reading: reading.scanner_share, 0.1, "cyan"),
    "scanner": Curve(lambda reading: reading.scanner_share, 0.1, "cyan"),
    "stalled": Curve(lambda reading: reading.stalled_percent, 10.0, "yellow"),
    "CPUs taken": Curve(lambda reading: reading.cpus_taken_percent, 10.0, "yellow"),
}
"""The tops are low, so that little is seen, and not so low that nothing looks like much."""


def picture(sight: Sight, viewing: Viewing, width: int, height: int, *, live: bool = True) -> list[Text]:
    """The lines of the screen, exactly as many as it has. Else than `live` it names no key, and may be shorter."""
    body = max(0, height - 1)
    if viewing.page == "guests":
        lines = _overview(sight, viewing, width, body, live=live)
    else:
        lines = page_lines(sight, viewing, width)
        lines = lines[viewing.scrolled : viewing.scrolled + body]
    lines += [Text("")] * (body - len(lines) if live else 1)
    lines = [*lines[:body], _footer(sight, viewing, width, live=live)][:height]
    for line in lines:
        line.truncate(width)
    return lines


def rows_of(sight: Sight, viewing: Viewing, width: int, height: int) -> tuple[int, int]:
    """The rows that a page has on this screen, and the lines that there are in all; for keys that move."""
    body = max(1, height - 1)
    if viewing.page != "guests":
        return body, len(page_lines(sight, viewing, width))
    now = sight.status.snapshot
    return max(1, _table_height(len(viewing.shown(now)), body) - 1), len(now.guests)


def _table_height(guests: int, body: int) -> int:
    """The lines that the table with its headers gets at least: half of the screen, or what it needs."""
    return min(max(1, body - 2), 1 + min(max(1, guests), max(LEAST_TABLE_ROWS, body // 2)))


def _overview(sight: Sight, viewing: Viewing, width: int, body: int, *, live: bool) -> list[Text]:
    guests = viewing.shown(sight.status.snapshot)
    head = _head(sight, width, body - _table_height(len(guests), body))
    if len(head) + 1 + max(1, len(guests)) < body:
        head.append(Text(""))
    lines = [*head, *table_lines(sight.status.snapshot, guests, viewing, width, body - len(head), live=live)]
    spare = body - len(lines) - 1
    if spare > LEAST_RULES:
        lines += [Text(""), *rules(sight, width)[:spare]]
    return lines


def _head(sight: Sight, width: int, most: int) -> list[Text]:
    """What stands above the table, in at most so many lines. The reason takes what the other rows leave."""
    first = Text(fitted(_headline(sight, width), width), style=sight.headline_style)
    mode, *rows = status_rows(sight.status)
    rows = _most_important(sight, [(name, _lately(sight, name, value)) for name, value in rows], most - 2)
    reason = _reason(*mode, width, most - 1 - len(rows))
    return [first, *reason, *(_row(sight, name, value, width) for name, value in rows)][: max(0, most)]


def _lately(sight: Sight, name: str, value: str) -> str:
    """A row's value. That of copies begins with how many come now, of which their sum since boot says nothing."""
    rates = sight.past.curve(CURVES[name].value) if name == "copies" else []
    return f"{rates[-1]:,.0f} a second; {value}" if rates else value


def _most_important(sight: Sight, rows: list[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    """The rows that there is room for. The first problem is among them, however many others are left out."""
    problems = [value for name, value in rows if name == "problem"]
    others = [(name, value) for name, value, _ in sight.more]
    others += [(name, value) for name, value in rows if name not in ELSEWHERE]
    if not problems or most < 1:
        return others[: max(0, most)]
    more = f" (and {len(problems) - 1} more: w)" if len(problems) > 1 else ""
    return [*others[: most - 1], ("problem", problems[0] + more)]


def _headline(sight: Sight, width: int) -> str:
    if sight.trouble is not None:
        return sight.trouble
    return sight.headline if width >= LEAST_WIDTH else sight.status.line


def _reason(mode: str, reason: str, width: int, most: int) -> Iterator[Text]:
    badge, style = f" {mode.upper()} ", f"bold reverse {MODE_STYLES[Mode(mode)]}"
    places = max(len(badge) + 1, _label_width(width))
    for number, line in enumerate(wrapped(reason, max(1, width - places), max(1, most))):
        label = (badge, style) if number == 0 else ("", "")
        yield Text.assemble(label, " " * (places - len(label[0])), (line, "bold"))


def _row(sight: Sight, name: str, value: str, width: int) -> Text:
    """A row with its name, and what is drawn beside it."""
    places = width // 5
    drawn = _drawing(sight, name, places) if width >= LEAST_WIDTH else Text("")
    room = width - _label_width(width) - (places + 1 if drawn else 0)
    alarm = _alarm(sight.status.snapshot, name)
    label = fitted(name, _label_width(width)), alarm or "dim"
    return Text.assemble(label, (fitted(value, max(1, room)), alarm), " ", drawn)


def _label_width(width: int) -> int:
    return LABEL_WIDTH if width >= LEAST_WIDTH else NARROW_LABEL_WIDTH


def _alarm(now: Snapshot, name: str) -> str:
    """The style of a row that somebody should see; '' for all others."""
    if name == "debt" and (now.saved_bytes > could_find_bytes(now.memory) or short_of_room(now)):
        return "bold red"
    return "yellow" if name in {"problem", "paused"} else ""


def _drawing(sight: Sight, name: str, width: int) -> Text:
    """The curve or the bar of a row; an empty text when it has none."""
    now = sight.status.snapshot
    shares = {more: share for more, _, share in sight.more}
    if name in shares:
        return bar(shares[name], width, "green")
    if name == "memory":
        return bar(1 - now.memory.available_fraction, width, "blue")
    if name == "debt":
        share = now.saved_bytes / max(1, could_find_bytes(now.memory))
        return bar(share, width, "red" if share > 1 else "green")
    if name in CURVES:
        drawn = CURVES[name]
        values = sight.past.curve(drawn.value)
        return Text(curve(values, width, drawn.least_top), style=drawn.style) if len(values) > 1 else Text("")
    return Text("")


def _footer(sight: Sight, viewing: Viewing, width: int, *, live: bool) -> Text:
    if viewing.is_typing:
        typed = ("filter: ", "bold"), viewing.filter, ("_", "blink"), ("  Enter keeps it, Esc drops it", "dim")
        return Text.assemble(*typed)
    counted = _counted(sight, viewing)
    keys = () if not live else KEYS if viewing.page == "guests" else PAGE_KEYS
    line = Text()
    for key, does in keys:
        longer = Text.assemble(line, (key, "bold cyan"), f" {does}  ")
        if longer.cell_len + cell_len(counted) > width:
            break
        line = longer
    gap = " " * max(0, width - line.cell_len - cell_len(counted))
    return Text.assemble(line, gap, (counted, "dim"))


def _counted(sight: Sight, viewing: Viewing) -> str:
    now = sight.status.snapshot
    if viewing.page != "guests" or not viewing.filter:
        return f"{sight.host}: {len(now.guests)} guest{'s' if len(now.guests) != 1 else ''}"
    return f'"{viewing.filter}": {len(viewing.shown(now))} of {len(now.guests)} guests'
