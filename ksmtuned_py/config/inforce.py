"""Keeps the configuration in force, in one place. Whoever needs it reads it there, and a reload replaces it."""

from hashlib import sha256
from typing import TypeVar

from ksmtuned_py.config.sections import Config
from ksmtuned_py.config.types import START_ONLY, Section

S = TypeVar("S", bound=Section)
FINGERPRINT_LENGTH = 12
"""Digits of a configuration's fingerprint: two of a million hosts' are alike by chance once in 500 times."""


class InForce:
    """Has the configuration of one machine. Nobody keeps a copy of any part of it."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def take(self, new: Config) -> None:
        """Put a new configuration in force, but for keys that have to wait for the next start."""
        self.config = at_reload(self.config, new)


def fingerprint(config: Config) -> str:
    """A short text that is the same on two hosts of one version when their configurations are.

    What is below [metrics] does not count: each host has an address of its own there.
    """
    text = config.model_dump_json(exclude={"metrics"})
    return sha256(text.encode()).hexdigest()[:FINGERPRINT_LENGTH]


def at_reload(old: Section, new: S) -> S:
    """The new section, in which keys that take effect only at a start keep their old values."""
    kept = {}
    for name, value in new:
        before = getattr(old, name)
        if is_start_only(new, name):
            kept[name] = before
        elif isinstance(value, Section):
            kept[name] = at_reload(before, value)
    return new.model_copy(update=kept)


def is_start_only(section: Section, name: str) -> bool:
    """Whether a key takes effect only at a start, because AtStart marks it where it is defined."""
    return START_ONLY in type(section).model_fields[name].metadata
