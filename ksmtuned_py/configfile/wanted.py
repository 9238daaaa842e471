"""Puts into words what a key of the configuration takes. It reads the schema, so no message can disagree with it."""

import difflib
import math
from functools import cache
from typing import Any

from ksmtuned_py.config import Config
from ksmtuned_py.configfile.lines import KeyPath

UNITS = {
    "percent": "percent",
    "seconds": "seconds",
    "ms": "milliseconds",
    "msec": "milliseconds",
    "millisecs": "milliseconds",
    "kib": "KiB",
    "mib": "MiB",
    "gib": "GiB",
}
"""The parts of a key's name that are its unit, and their words."""


REMOVED = {
    "scan.suspend_guests": "guests are not suspended: those with vhost, io_uring or native AIO are refused",
    "scan.suspend_window_ms": "guests are not suspended any more",
}
"""Keys that were there once, and what replaced them."""


@cache
def _schema() -> dict[str, Any]:
    return Config.model_json_schema()


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    name = node.get("$ref", "").removeprefix("#/$defs/")
    return _schema()["$defs"][name] if name else node


def wanted(path: KeyPath) -> str:
    """The words after 'wanted', as 'one of quiet, balanced, eager' or 'a number from 0 to 100 (percent)'."""
    node = _node(path)
    return _sentence(node, path) if node else _other_key(path)


def adds_up(path: KeyPath) -> bool:
    """Whether the values of this key in several files add up, as for lists of tables such as rules."""
    return bool(_resolved(_node(path).get("items", {})).get("properties"))


def _node(path: KeyPath) -> dict[str, Any]:
    """The schema of a key; empty when there is no such key."""
    node = _schema()
    for part in path:
        node = _resolved(node["items"] if isinstance(part, int) else node.get("properties", {}).get(part, {}))
        if not node:
            break
    return node


def known_keys(node: dict[str, Any] | None = None, above: str = "") -> list[str]:
    """All keys and sections that exist, dotted."""
    names: list[str] = []
    for name, inner in (node or _schema()).get("properties", {}).items():
        table = _resolved(inner.get("items", inner))
        names += [above + name, *known_keys(table, f"{above}{name}.")]
    return names


def _other_key(path: KeyPath) -> str:
    if reason := REMOVED.get(".".join(map(str, path))):
        return f"no such line any more: {reason}; delete it"
    names = known_keys()
    same_name = [name for name in names if name.endswith(f".{path[-1]}")]
    near = difflib.get_close_matches(".".join(part for part in path if isinstance(part, str)), names, n=1) or same_name
    return "a key that exists" + (f": did you mean {near[0]}?" if near else "")


def _sentence(node: dict[str, Any], path: KeyPath) -> str:
    node = _resolved(node)
    match node:
        case {"anyOf": choices}:
            return ", or ".join(_sentence(choice, path) for choice in choices)
        case {"enum": [first, second]}:
            return f"{first} or {second}"
        case {"enum": choices}:
            return "one of " + ", ".join(map(str, choices))
        case {"const": value}:
            return str(value)
        case {"format": words}:
            return str(words)
        case {"type": "array", "items": element}:
            return f"a list, each element {_sentence(element, path)}"
        case {"type": "integer"}:
            return "a whole number" + _range(node) + _unit(path)
        case {"type": "number"}:
            return "a number" + _range(node) + _unit(path)
        case {"type": "object", "properties": inner}:
            return f"a table of {', '.join(inner)}"
    return "true or false" if node["type"] == "boolean" else "text"


def _range(node: dict[str, Any]) -> str:
    if "minimum" in node and "maximum" in node:
        return f" from {_number(node['minimum'])} to {_number(node['maximum'])}"
    words = {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    return " and".join(f" {word} {_number(node[bound])}" for bound, word in words.items() if bound in node)


def _number(value: float) -> str:
    return str(int(value) if math.floor(value) == value else value)


def _unit(path: KeyPath) -> str:
    """The unit by the innermost part that names one. So price_cpu_seconds_per_gib.calm is in seconds per GiB."""
    for part in reversed(path):
        words = str(part).split("_")
        for start, word in enumerate(words):
            if word in UNITS:
                return f" ({' '.join(UNITS.get(word, word) for word in words[start:])})"
    return ""
