"""Writes and reads what became of the last reload, for whoever asked for it."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ksmtuned_py.door.runtime import read_file, replace_file


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadAnswer:
    """The daemon's word on one reload."""

    began_seconds: float
    """When it began to read the configuration (monotonic)."""
    refused: str | None = None
    """Every reason for which the old configuration stays; None when the new one is in force."""
    told: str = ""
    """The keys that changed."""


_ANSWER = TypeAdapter(ReloadAnswer)


def write(path: Path, answer: ReloadAnswer) -> None:
    """Replace the file; raises OSError."""
    replace_file(path, _ANSWER.dump_json(answer))


def read(path: Path) -> ReloadAnswer | None:
    """Read the last answer; None while there is none that can be read."""
    try:
        return _ANSWER.validate_json(read_file(path))
    except (OSError, ValidationError):
        return None
