"""Draws curves and bars of characters, cuts text to a width, and puts ASCII in place of what a terminal lacks. Pure."""

from collections.abc import Iterable
from itertools import accumulate
from unicodedata import normalize

from rich.cells import cell_len, set_cell_size
from rich.text import Span, Text

from ksmtuned_py.cli.live.past import resampled

CURVE = "▁▂▃▄▅▆▇"
"""Without the full block, so that a curve never meets the one above it."""
FULL, EMPTY = "━", "─"
DOWN, UP, MORE = "▼", "▲", "…"
ASCII = str.maketrans(f"{CURVE}{FULL}{EMPTY}{DOWN}{UP}{MORE}↑↓", "_.,-=+*=-v^~^v")


def curve(values: Iterable[float], width: int, least_top: float) -> str:
    """A curve of at most so many places. It reaches up to its largest value, but to `least_top` at least."""
    values = resampled(values, width)
    top = max([least_top, *values])
    return "".join(CURVE[min(len(CURVE) - 1, int(max(0.0, value) / top * len(CURVE)))] for value in values)


def bar(share: float, width: int, style: str) -> Text:
    """A bar that is full at a share of 1."""
    full = round(min(max(share, 0.0), 1.0) * width)
    return Text.assemble((FULL * full, style), (EMPTY * (width - full), "dim"))


def tidy(text: str) -> str:
    """The text in one line, without characters of no width. Terminals differ on them, and a name may have thousands."""
    if not text.isprintable():
        text = " ".join(text.split())
    return text if text.isascii() else "".join(one for one in normalize("NFC", text) if cell_len(one))


def fitted(text: str, width: int) -> str:
    """The text in exactly so many places; what is cut off ends with an ellipsis."""
    text = tidy(text)
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + MORE if width > 0 else ""


def wrapped(text: str, width: int, most: int) -> list[str]:
    """The text in lines of at most so many places, broken between words. The last of `most` lines is cut."""
    lines, words = [""], tidy(text).split(" ")
    while words:
        longer = f"{lines[-1]} {words[0]}" if lines[-1] else words[0]
        if cell_len(longer) <= width or not lines[-1]:
            lines[-1] = longer
            words.pop(0)
        elif len(lines) == most:
            lines[-1] = " ".join([lines[-1], *words])
            break
        else:
            lines.append("")
    return [line if cell_len(line) <= width else fitted(line, width) for line in lines]


def in_ascii(line: Text) -> Text:
    """A line, as wide as before, for a terminal that has only ASCII."""
    if line.plain.isascii():
        return line
    shown = [one.translate(ASCII) if ord(one) in ASCII or one.isascii() else "?" * cell_len(one) for one in line.plain]
    places = [0, *accumulate(map(len, shown))]
    spans = [Span(places[span.start], places[min(span.end, len(shown))], span.style) for span in line.spans]
    return Text("".join(shown), spans=spans, style=line.style)
