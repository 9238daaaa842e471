"""What one entry of the journal is: a sentence, with fields to search by."""

from dataclasses import dataclass, field
from enum import IntEnum


class Priority(IntEnum):
    """The levels of syslog that are used."""

    ERROR = 3
    WARNING = 4
    INFO = 6
    DEBUG = 7


Field = str | int | float


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of the journal, a sentence with fields to search by."""

    priority: Priority
    message: str
    fields: dict[str, Field] = field(default_factory=dict)
    context: str = ""
    """The fields in short, for sinks that have no fields."""
