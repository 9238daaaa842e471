"""The line of each key in a TOML text.

tomllib knows the language but keeps no positions, so it is asked statement by statement: the keys that a statement adds
to its table header stand where the statement begins.
"""

import tomllib
from collections.abc import Iterator
from typing import Any

KeyPath = tuple[str | int, ...]


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of each key, table and array element of a valid TOML text (not of the tables in [[arrays]])."""
    lines: dict[KeyPath, int] = {}
    header = statement = ""
    begin = 1
    for number, line in enumerate(text.split("\n"), 1):
        statement += line + "\n"
        table = _parsed(header + statement)
        for path in _paths(table or _parsed(header + statement + "]") or {}):
            lines.setdefault(path, number if isinstance(path[-1], int) else begin)
        if table is not None:
            header = statement if statement.lstrip().startswith("[") else header
            statement, begin = "", number + 1
    return lines


def _parsed(text: str) -> dict[str, Any] | None:
    """The table, or None while the text ends within a value."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _paths(value: object, above: KeyPath = ()) -> Iterator[KeyPath]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, element in inside:
        yield (*above, key)
        yield from _paths(element, (*above, key))
