"""Makes the pages of a live screen that are not the guests' table: one guest's account, the whole why, help."""

from collections.abc import Iterable, Iterator

from rich.text import Text

from ksmtuned_py.cli.guesttable import COLUMNS, account, sums, why_merging
from ksmtuned_py.cli.live.sight import Sight
from ksmtuned_py.cli.live.strokes import wrapped
from ksmtuned_py.cli.live.viewing import Viewing
from ksmtuned_py.cli.tell import clock_time, rule_lines, why_lines

MOST_WRAPPED = 20
"""The most lines of one sentence."""
INDENT = 14
MOST_CHANGES = 8
"""The changes of mind that are told; the page on the web has more."""
KEYS = (
    ("↑ ↓ k j", "to the guest above or below; on a page, to the line"),
    ("PgUp PgDn Home End", "further"),
    ("s > <", "sort by the next column, or by the one before"),
    ("r", "turn the order round"),
    ("/", "show only guests with this text in a name, the PID, the group, or the reason; Esc ends that"),
    ("Enter", "all that is known of a guest, and why it may merge or not"),
    ("w", "the whole why: each rule with its numbers"),
    ("Ctrl-L", "draw the screen anew"),
    ("Ctrl-Z", "leave it for a while; fg comes back"),
    ("q", "quit"),
)


def page_lines(sight: Sight, viewing: Viewing, width: int) -> list[Text]:
    """The lines of the open page, however many there are."""
    match viewing.page:
        case "guest":
            return list(_guest(sight, viewing, width))
        case "help":
            return list(_help(width))
    return list(_why(sight, width))


def _guest(sight: Sight, viewing: Viewing, width: int) -> Iterator[Text]:
    now = sight.status.snapshot
    guest = next((guest for guest in now.guests if guest.key == viewing.chosen), None)
    if guest is None:
        yield Text("This guest has ended.", style="yellow")
        return
    yield from _folded(f"Guest {guest.name}", width, "bold reverse")
    yield Text("")
    for sentence in why_merging(guest, now.page_bytes):
        yield from _folded(sentence, width, "bold")
    yield Text("")
    for name, value in account(guest, now.page_bytes):
        yield from _row(name, value, width)
    yield Text("")
    yield from _folded(f"ksmtuned-py doctor {guest.pid} looks closer, also into its memory map.", width, "dim")


def _why(sight: Sight, width: int) -> Iterator[Text]:
    status = sight.status
    yield from _folded(sight.headline, width, sight.headline_style)
    yield from _hanging(why_lines(status), width)
    yield Text("")
    if status.decisions:
        yield Text("Lately:")
    for change in status.decisions[:MOST_CHANGES]:
        told = f"  {clock_time(change.unix_seconds, '%H:%M:%S')}  "
        yield from _folded(f"{told}{change.mode}: {change.reason}", width, indent=len(told))
    yield Text("")
    yield from _folded(sums(status.snapshot), width)
    yield Text("")
    yield Text("Knobs:")
    for name, value in status.snapshot.knobs.items():
        yield Text(f"  {name} = {value}")
    for problem in status.snapshot.problems:
        yield from _folded(f"problem: {problem}", width, "yellow")


def rules(sight: Sight, width: int) -> list[Text]:
    """Each rule with its numbers, and what would change the decision, for where there is room."""
    return list(_hanging(rule_lines(sight.status), width))


def _hanging(lines: Iterable[tuple[str, str | None]], width: int) -> Iterator[Text]:
    """Lines with their styles. What is below a heading goes on further to the right."""
    for line, style in lines:
        indent = 20 if line[:4] in {"  * ", "  - "} else 2 if line.startswith("  ") else 0
        yield from _folded(line, width, style or "", indent)


def _help(width: int) -> Iterator[Text]:
    yield Text("Keys", style="bold reverse")
    for key, does in KEYS:
        yield from _row(key, does, width, INDENT + 6)
    yield Text("")
    yield Text("Columns", style="bold reverse")
    for column in COLUMNS:
        yield from _row(column.header, column.help, width)
    yield Text("")
    yield from _folded("A curve shows what was seen since this began, up to its own largest value.", width)
    yield from _folded("The bar of memory is what is used. That of debt is full where the host could fall.", width)


def _row(name: str, value: str, width: int, indent: int = INDENT) -> Iterator[Text]:
    """A row whose value goes on below itself."""
    lines = wrapped(value, max(8, width - indent), MOST_WRAPPED)
    for number, line in enumerate(lines):
        yield Text.assemble((f"{name if number == 0 else '':<{indent}}", "dim"), line)


def _folded(text: str, width: int, style: str = "", indent: int = 0) -> Iterator[Text]:
    """A text that goes on below itself, further to the right by the indent."""
    head = text[:indent]
    for number, line in enumerate(wrapped(text[indent:], max(8, width - indent), MOST_WRAPPED)):
        yield Text((head if number == 0 else " " * indent) + line, style=style)
