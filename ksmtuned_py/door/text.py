"""Reads numbers, and makes text of other people's processes harmless where it is read. Pure."""

from typing import Any

from ksmtuned_py.errors import Garbage

MOST_NUMBER = 2**64
"""Nothing has more bytes or pages. With larger numbers a computation may fail."""


def parse_int(path: str, text: str) -> int:
    """Read a signed decimal number and nothing else; raises Garbage, which names the file."""
    stripped = text.strip()
    digits = stripped.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise Garbage(path, text[:60], "a decimal number")
    return int(stripped)


def chosen(text: str) -> str:
    """The choice in brackets of a kernel file that lists all, as in 'always [madvise] never'; '' when there is none."""
    return text.partition("[")[2].partition("]")[0]


def kernel_lines(text: str) -> list[str]:
    """The lines of a kernel's file. A name in it may have what Python takes for a line's end, as a form feed."""
    return text.removesuffix("\n").split("\n") if text else []


def printable(text: str) -> str:
    """Escape what would steer a terminal, forge a line or hide, in the way Python does.

    A process may call itself anything. So all text of guests is escaped here once, where it is read, and no surface has
    to mind it.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def printable_lines(text: str) -> str:
    """Escape each line of a text, and keep the line ends."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: bytes) -> bytes:
    """Escape all texts in a JSON file, which anybody may have written; raises ValueError when it is no JSON."""
    from pydantic_core import from_json, to_json  # it takes longer than all else that those need who only read numbers

    return to_json(_printable_in(from_json(text)))


def _printable_in(value: Any) -> Any:
    match value:
        case str():
            return printable(value)
        case int() if abs(value) > MOST_NUMBER:
            raise ValueError("a number that is larger than any of ours")
        case list():
            return [_printable_in(each) for each in value]
        case dict():
            return {printable(key): _printable_in(each) for key, each in value.items()}
    return value
