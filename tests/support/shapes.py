"""Compares what a page says that a command printed with what it prints now: its words, not its figures."""

import ast
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.support.commands import Command

PACKAGE = Path(__file__).parent.parent.parent / "ksmtuned_py"
ONE = r"(?<![\w-])-?\d[\d.:,]*(?:\s?(?:%|B|KiB|MiB|GiB|ms|s|min|h|d)(?!\w))?"
FIGURE = re.compile(rf"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?{ONE}(?:\s{ONE})*")
"""A size, a share, a time: "59 min 59 s" is one."""
BAR = re.compile("[▁-█·]+ *")
RULE = re.compile(r"^  [-*] (\w+) ", re.MULTILINE)
ROW = re.compile(r"^  (\w+) {2,}", re.MULTILINE)
SOMETIMES = {"paused", "problem", "stalled", "ksmd", "copies"}
"""Rows of the status that only some hosts have, or only after some looks."""
LEAST_LETTERS = 8
"""What the code says of a line in words of its own, at least."""


def shape(command: Command, output: str) -> object:
    """Returns what stays the same from host to host of what a command printed."""
    verb = command.ours[0][0] if command.ours else ""
    alone = len(command.programs) == 1 and "--json" not in command.line
    find = SHAPES.get(verb, _lines) if alone else _lines
    return find(output)


def unsaid(output: str) -> list[str]:
    """Returns the lines of which no words are in our code any more."""
    return [line for line in output.splitlines() if line.strip() and not _is_said(line)]


def is_compared(command: Command) -> bool:
    """Whether it is run and compared; else its lines have to be the code's (`unsaid`)."""
    return command.runs and all(arguments[0] != "doctor" for arguments in command.ours)


def _lines(output: str) -> list[str]:
    """Returns each kind of line once, without its figures and bars."""
    return sorted({" ".join(FIGURE.sub("#", BAR.sub("", line)).split()) for line in output.splitlines()})


def _guests(output: str) -> tuple[list[str], list[str]]:
    """Returns the columns, and the sentence below."""
    lines = output.splitlines()
    return lines[0].split(), [FIGURE.sub("#", line) for line in lines if "merged in all" in line]


def _status(output: str) -> list[str]:
    """Returns the rows but the first, which is named for what the daemon does."""
    return [row for row in ROW.findall(output)[1:] if row not in SOMETIMES]


def _why(output: str) -> tuple[list[str], bool]:
    """Returns the rules, and whether it says what would change it."""
    return RULE.findall(output), "\nWhat would change it:\n" in output


SHAPES: dict[str, Callable[[str], object]] = {"guests": _guests, "status": _status, "why": _why}


def _is_said(line: str) -> bool:
    """Whether the code has its words, or it is a row of a table: a name and figures, or the columns' names."""
    words = [word for word in FIGURE.sub("", BAR.sub("", line)).split() if word.isalpha()]
    sayings = _sayings()
    return len(words) <= 1 or set(words) <= _single_words() or any(pattern.search(line) for pattern in sayings)


@cache
def _single_words() -> frozenset[str]:
    """Returns the texts of our code that are one word."""
    texts = (
        node.value
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant)
    )
    return frozenset(text for text in texts if isinstance(text, str) and text.isalpha())


@cache
def _sayings() -> tuple[re.Pattern[str], ...]:
    """Returns a pattern for each text of our code; a value in it may be anything."""
    texts = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(re.escape(node.value))
            if isinstance(node, ast.JoinedStr):
                texts.add("".join(_part(part) for part in node.values))
    return tuple(re.compile(text) for text in texts if _is_telling(text))


def _is_telling(pattern: str) -> bool:
    """Whether a text is long enough to be known by: several words beside its values."""
    words = [word for word in re.split(r"\\?\s|\.\+", pattern) if re.search("[a-z]", word)]
    return len(words) > 1 and len(re.findall("[a-z]", "".join(words))) >= LEAST_LETTERS


def _part(part: ast.expr) -> str:
    return re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+"
