"""Finds the line of each key in a TOML text.

tomllib knows the language but keeps no positions, so it is asked statement by statement. The keys that a statement adds
to its table header are at the line where the statement begins.
"""

import tomllib
from collections.abc import Iterator
from typing import Any

KeyPath = tuple[str | int, ...]


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of each key, table and array element of a valid TOML text."""
    lines: dict[KeyPath, int] = {}
    newest: dict[KeyPath, int] = {}
    header = statement = ""
    begin = 1
    for number, line in enumerate(text.split("\n"), 1):
        statement += line + "\n"
        header = "" if statement.lstrip().startswith("[") else header
        table = _parsed(header + statement)
        if table is not None and statement.lstrip().startswith("["):
            _count(table, newest, statement)
            header = statement
        for path in _paths(table or _parsed(header + statement + "]") or {}):
            lines.setdefault(_placed(path, newest), number if isinstance(path[-1], int) else begin)
        if table is not None:
            statement, begin = "", number + 1
    return lines


def _count(table: dict[str, Any], newest: dict[KeyPath, int], header: str) -> None:
    """Count the element that a [[header]] begins. `newest` has the index of each array's last element."""
    if header.lstrip().startswith("[["):
        array = _placed(next(path for path in _paths(table) if isinstance(path[-1], int))[:-1], newest)
        newest[array] = newest.get(array, -1) + 1


def _placed(path: KeyPath, newest: dict[KeyPath, int]) -> KeyPath:
    """A path as the whole text has it. A statement by itself knows only one element of an [[array]]."""
    placed, left = path[:1], path[1:]
    while left:
        if placed in newest:
            placed, left = (*placed, newest[placed]), left[1:] if left[0] == 0 else left
        placed, left = (*placed, *left[:1]), left[1:]
    return placed


def _parsed(text: str) -> dict[str, Any] | None:
    """The table of a text; None while the text ends within a value."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _paths(value: object, above: KeyPath = ()) -> Iterator[KeyPath]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, element in inside:
        yield (*above, key)
        yield from _paths(element, (*above, key))
