"""Writes and reads the lines of a trace, and says what can be wrong with them."""

from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from ksmtuned_py import __version__
from ksmtuned_py.config import Config
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.model import Decision, Snapshot

SCHEMA = 1
T = TypeVar("T")


@dataclass(eq=False)
class BadTrace(KsmtunedError):
    """Raised for a file that is no trace, or a damaged one; line 0 is the file as a whole."""

    file: str
    line: int
    reason: str
    hint_template = "traces are written by ksmtuned-py record"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


@dataclass(eq=False)
class NoZstd(KsmtunedError):
    """Raised when zstd is asked for and not installed."""

    file: str
    template = "{file}: the library zstandard is not installed"
    hint_template = "install python3-zstandard, or record to a name that does not end in .zst"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first line of a trace."""

    schema: int = SCHEMA
    version: str = __version__
    config: Config
    """The configuration of the recorded decisions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A line of a trace behind the first."""

    snapshot: Snapshot
    decision: Decision


def line_of(content: Header | Tick) -> bytes:
    """Returns one line with its end; what is infinite becomes "Infinity", which is read back as that."""
    return to_json(content, inf_nan_mode="strings") + b"\n"


def parse_header(file: str, text: bytes) -> Header:
    """Reads the first line; raises BadTrace, also for one of another schema."""
    try:
        content = from_json(text)
    except ValueError:
        content = None
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema is None:
        raise BadTrace(file, 1, "this is no trace: its first line is no header with a schema")
    if schema != SCHEMA:
        raise BadTrace(file, 1, f"wanted schema {SCHEMA}, found {schema}: another version wrote it")
    return _parsed(_header(), file, 1, text)


def parse_tick(file: str, number: int, text: bytes) -> Tick:
    """Reads line `number` as a tick; raises BadTrace."""
    if not text.endswith(b"\n"):
        raise BadTrace(file, number, "the line is cut off: the file is incomplete")
    return _parsed(_tick(), file, number, text)


def _parsed(kind: "TypeAdapter[T]", file: str, number: int, text: bytes) -> T:
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadTrace(file, number, f"{where}: {first['msg']}" if where else first["msg"]) from error


@cache
def _header() -> "TypeAdapter[Header]":
    return TypeAdapter(Header)


@cache
def _tick() -> "TypeAdapter[Tick]":
    return TypeAdapter(Tick)
