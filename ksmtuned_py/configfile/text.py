"""Writes the configuration as TOML text: values and keys, the commented sample, the effective configuration."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ksmtuned_py.config import ByNeed, Config
from ksmtuned_py.config.inforce import is_start_only
from ksmtuned_py.config.types import START_ONLY, Section
from ksmtuned_py.configfile.lines import KeyPath
from ksmtuned_py.configfile.wanted import wanted

SAMPLE_HEAD = """\
The configuration of ksmtuned-py: every key, at its default. Made by packaging/generate.py.

Read from /etc/ksmtuned-py/config.toml, then from config.d/*.toml beside it in the order of their names: later wins,
key by key. Only lists of tables ([[guests.rule]], [[doctor.accept]]) add up, in this same order; other lists replace
one another. A key that is left out has its default. `ksmtuned-py check` finds mistakes; SIGHUP reloads."""


def toml_value(value: object) -> str:
    """A value as TOML writes it."""
    match value:
        case Mapping():
            return "{ " + ", ".join(f"{dotted((key,))} = {toml_value(inner)}" for key, inner in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(map(toml_value, value)) + "]"
        case bool() | str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case _:  # numbers, dates and times
            return str(value)


def dotted(path: KeyPath) -> str:
    """A key as TOML writes it. An element of an array has its index in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            text += ("." if text else "") + (part if bare else toml_value(part))
    return text


def flat(table: Mapping[str, Any], above: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every key that is no table, with its value."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, (*above, key))
        else:
            yield (*above, key), value


def sections(section: Section, above: KeyPath = ()) -> Iterator[tuple[KeyPath, Section]]:
    """The section, and the sections inside it that get a [header] of their own, in the order of a file."""
    yield above, section
    for name, value in section:
        if _has_header(value):
            yield from sections(value, (*above, name))


def keys(section: Section) -> Iterator[tuple[str, str, Any]]:
    """The section's own keys: name, description, value."""
    for name, value in section:
        if not _has_header(value):
            description = type(section).model_fields[name].description or ""
            yield name, f"{description}\n({START_ONLY})" if is_start_only(section, name) else description, _plain(value)


def _has_header(value: object) -> bool:
    return isinstance(value, Section) and not isinstance(value, ByNeed)


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.model_dump() if isinstance(value, Section) else value


def _comment(text: str) -> list[str]:
    return [f"# {line}".rstrip() for line in text.splitlines()]


def render_sample() -> str:
    """The text of the sample file, in which every section and key has its comment and default."""
    lines = _comment(SAMPLE_HEAD)
    for path, section in sections(Config()):
        if path:
            lines += ["", "", *_comment(type(section).__doc__ or ""), f"[{dotted(path)}]"]
        for name, description, value in keys(section):
            lines += ["", *_comment(description), *_comment(f"takes {wanted((*path, name))}")]
            lines += [f"{name} = {toml_value(value)}"]
    return "\n".join(lines) + "\n"


def render_effective(config: Config, place: Callable[[str], str]) -> str:
    """The text with every key, its value and, as a comment, the place it comes from."""
    lines: list[str] = []
    for path, section in sections(config):
        if path:
            lines += ["", f"[{dotted(path)}]"]
        for key, value in flat({name: value for name, _, value in keys(section)}):
            lines += [f"{dotted(key)} = {toml_value(value)}  # {place(dotted((*path, *key)))}"]
    return "\n".join(lines).lstrip("\n") + "\n"
