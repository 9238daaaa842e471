"""The one place where the configuration in force is kept: who needs it reads it there, and a reload replaces it."""

from typing import TypeVar

from ksmtuned_py.config.sections import Config
from ksmtuned_py.config.types import START_ONLY, Section

S = TypeVar("S", bound=Section)


class InForce:
    """Holds the configuration of one machine; nobody keeps a copy of any part of it."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def take(self, new: Config) -> None:
        """From now on the new one holds, but for what has to wait for the next start."""
        self.config = at_reload(self.config, new)


def at_reload(old: Section, new: S) -> S:
    """The new section with those keys as they were that take effect only at a start."""
    kept = {}
    for name, value in new:
        before = getattr(old, name)
        if is_start_only(new, name):
            kept[name] = before
        elif isinstance(value, Section):
            kept[name] = at_reload(before, value)
    return new.model_copy(update=kept)


def is_start_only(section: Section, name: str) -> bool:
    """Whether a key takes effect only at a start: marked where it is defined, by AtStart."""
    return START_ONLY in type(section).model_fields[name].metadata
