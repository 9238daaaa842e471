"""Loads the configuration from a TOML file and drop-ins. Later files win key by key; lists of tables add up."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ksmtuned_py.config import Config
from ksmtuned_py.config.types import OLD_BACKENDS
from ksmtuned_py.configfile.lines import KeyPath
from ksmtuned_py.configfile.source import ConfigError, Source, read_sources
from ksmtuned_py.configfile.text import dotted, flat, toml_value
from ksmtuned_py.configfile.wanted import adds_up, wanted
from ksmtuned_py.errors import KsmtunedError

# Keys whose values have to be in this order, whichever file each comes from.
ORDERED = (
    ("daemon.tick_seconds", "<=", "daemon.idle_tick_seconds"),
    ("adaptive.pass_gap_seconds", "<=", "adaptive.pass_gap_max_seconds"),
    ("adaptive.need.wary_enter_percent", "<=", "adaptive.need.wary_leave_percent"),
    ("adaptive.need.short_enter_percent", "<=", "adaptive.need.short_leave_percent"),
    ("adaptive.need.critical_enter_percent", "<=", "adaptive.need.critical_leave_percent"),
    ("adaptive.need.short_enter_percent", "<", "adaptive.need.wary_enter_percent"),
    ("adaptive.need.critical_enter_percent", "<", "adaptive.need.short_enter_percent"),
    ("ksmtuned.npages_min", "<=", "ksmtuned.npages_max"),
    ("mom.npages_min", "<=", "mom.npages_max"),
    ("kubevirt.pages_min", "<=", "kubevirt.pages_init"),
    ("kubevirt.pages_init", "<=", "kubevirt.pages_max"),
)
BACKEND = "daemon.backend"
RELATIONS = {"<": (operator.lt, "below", "above"), "<=": (operator.le, "at most", "at least")}
"""The tests of the order of two keys, with the words for the first key and for the second."""


@dataclass(eq=False)
class ConfigErrors(KsmtunedError):
    """The configuration has mistakes, all of which are told, one a line."""

    errors: tuple[ConfigError, ...]
    hint_template = "ksmtuned-py check --sample prints every key with its default and what it takes"

    def __str__(self) -> str:
        count = "1 mistake" if len(self.errors) == 1 else f"{len(self.errors)} mistakes"
        return "\n".join([f"{count} in the configuration", *map(str, self.errors)])


@dataclass(frozen=True)
class Loaded:
    """The configuration, and the files it comes from."""

    config: Config
    sources: tuple[Source, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of the files that were read, in their order."""
        return tuple(source.file for source in self.sources)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what is taken and should be written in another way, or does not do what it seems to."""
        old_names = tuple(
            f'{source.place(BACKEND)}: {BACKEND} = "{old}" is an old name, write "{OLD_BACKENDS[old]}"'
            for source in self.sources
            if (old := str(source.values.get(BACKEND))) in OLD_BACKENDS
        )
        guests = self.config.guests
        if not guests.isolation_group or guests.isolation == "groups":
            return old_names
        place = self.place("guests.isolation_group")
        return (*old_names, f'{place}: guests.isolation_group does nothing without guests.isolation = "groups"')

    @property
    def origins(self) -> dict[str, str]:
        """The file that sets each dotted key, or 'default'."""
        setters = {key: _setter(self.sources, key) for key in _flat(self.config.model_dump())}
        return {key: setter.file if setter else "default" for key, setter in setters.items()}

    def place(self, key: str) -> str:
        """The FILE:LINE that sets a dotted key, or 'default'. A list that adds up has all of them."""
        if not adds_up(tuple(key.split("."))):
            return _place(self.sources, key)
        return ", ".join(source.place(key) for source in self.sources if key in source.values) or "default"


def load(config_path: Path | None = None, config_dir: Path | None = None) -> Loaded:
    """Load the configuration; raises ConfigErrors. A path that is None is the default place, and may be missing."""
    sources, unread = read_sources(config_path, config_dir)
    mistakes = [mistake for source in sources for mistake in _key_mistakes(source)]
    if not unread:  # the other key of a pair may be in a file that cannot be read
        mistakes += _order_mistakes(sources, {mistake.key for mistake in mistakes})
    if unread or mistakes:
        raise ConfigErrors((*unread, *mistakes))
    return Loaded(Config.model_validate(_layered(sources)), tuple(sources))


def changed_keys(old: Config, new: Config) -> tuple[tuple[str, Any, Any], ...]:
    """The changes of a reload: dotted key, old value, new value."""
    before, after = _flat(old.model_dump()), _flat(new.model_dump())
    return tuple((key, before[key], after[key]) for key in before if before[key] != after[key])


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    return {dotted(path): value for path, value in flat(table)}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any], path: KeyPath = ()) -> dict[str, Any]:
    """Merge two tables key by key. The one above wins, but its lists of tables are added to those below."""
    both = dict(below)
    for key, value in above.items():
        match below.get(key), value:
            case Mapping() as under, Mapping():
                both[key] = _merged(under, value, (*path, key))
            case list() | tuple() as under, list() if adds_up((*path, key)):
                both[key] = [*under, *value]
            case _:
                both[key] = value
    return both


def _layered(sources: Sequence[Source]) -> dict[str, Any]:
    """The defaults, and the files over them."""
    table = Config().model_dump()
    for source in sources:
        table = _merged(table, source.table)
    return table


def _setter(sources: Sequence[Source], key: str) -> Source | None:
    """The source whose value of a dotted key holds; None for the default."""
    return next((source for source in reversed(sources) if key in source.values), None)


def _place(sources: Sequence[Source], key: str) -> str:
    setter = _setter(sources, key)
    return setter.place(key) if setter else "default"


def _key_mistakes(source: Source) -> list[ConfigError]:
    """The mistakes of one file, in the order of its lines: keys that do not exist, or have no good value."""
    try:
        Config.model_validate(_layered([source]))
    except ValidationError as refused:
        # A dict, because a value that fits none of several types is refused for each, and told once.
        values = dict(_in_file(source.table, error["loc"]) for error in refused.errors())
        mistakes = [
            ConfigError(source.file, source.line(path), dotted(path), toml_value(value), wanted(path))
            for path, value in values.items()
        ]
        return sorted(mistakes, key=lambda mistake: mistake.line)
    return []


def _in_file(table: dict[str, Any], place: KeyPath) -> tuple[KeyPath, Any]:
    """The part of pydantic's place that is in the file, and the value there. Names of types follow it."""
    path: KeyPath = ()
    value: Any = table
    for part in place:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            break
        path = (*path, part)
    return path, value


def _order_mistakes(sources: Sequence[Source], wrong: set[str]) -> list[ConfigError]:
    """The mistakes of keys that contradict each other, unless one of them is wrong by itself."""
    values = {key: value for key, value in _flat(_layered(sources)).items() if key not in wrong}
    return [
        _order_mistake(sources, values, low, relation, high)
        for low, relation, high in ORDERED
        if low in values and high in values and not RELATIONS[relation][0](values[low], values[high])
    ]


def _order_mistake(
    sources: Sequence[Source], values: Mapping[str, Any], low: str, relation: str, high: str
) -> ConfigError:
    """The mistake of two keys. It blames the key that was set last, as a drop-in contradicts the file below it."""
    rank = {key: sources.index(setter) if (setter := _setter(sources, key)) else -1 for key in (low, high)}
    _, asked_of_low, asked_of_high = RELATIONS[relation]
    blamed, asked, other = (low, asked_of_low, high) if rank[low] >= rank[high] else (high, asked_of_high, low)
    source = sources[rank[blamed]]
    line = source.line(tuple(blamed.split(".")))
    words = f"{asked} {other} = {toml_value(values[other])} ({_place(sources, other)})"
    return ConfigError(source.file, line, blamed, toml_value(values[blamed]), words)
