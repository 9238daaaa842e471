"""Writes and reads files of sketches, and the key of the fleet, without which they say nothing of a content."""

import os
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from ksmtuned_py.door.runtime import PRIVATE_MODE, read_anybodys, read_file, replace_file
from ksmtuned_py.door.text import printable_json
from ksmtuned_py.errors import KsmtunedError, Unreadable
from ksmtuned_py.scanner.sketch import MOST_CONTENTS, SCHEMA, VALUE_BYTES, HostSketch
from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES
from ksmtuned_py.units import MIB

KEY_BYTES_LEAST = 32
MOST_BYTES = 64 * MIB
"""The most that is read of a file of sketches: some thousand guests."""


@dataclass(eq=False)
class NoKey(KsmtunedError):
    """The fleet's key cannot be used."""

    path: str
    reason: str
    template = "{path}: no key for sketches: {reason}"
    hint_template = "make one, and copy it to all hosts: head -c 32 /dev/urandom | install -m 600 /dev/stdin {path}"


@dataclass(eq=False)
class OtherKey(KsmtunedError):
    """Sketches of different keys cannot be compared."""

    path: str
    template = "{path}: was made with another key"
    hint_template = "all hosts of a fleet need the same key file"


def read_key(path: Path) -> bytes:
    """Read the fleet's key, which only its owner may read; raises NoKey."""
    try:
        if path.stat().st_mode & 0o077:
            raise NoKey(str(path), "others than its owner may read it")
        text = read_file(path)
    except OSError as error:
        raise NoKey(str(path), error.strerror or str(error)) from error
    if len(text) < KEY_BYTES_LEAST:
        raise NoKey(str(path), f"it has {len(text)} bytes, and {KEY_BYTES_LEAST} are the least")
    return blake2b(text, digest_size=32).digest()


def write(path: Path, sketch: HostSketch) -> None:
    """Replace a file of sketches in one step; raises OSError."""
    replace_file(path, to_json(sketch) + b"\n", PRIVATE_MODE)


def read(path: Path, key_id: str) -> HostSketch:
    """Read a file of sketches made with that key, whoever wrote it; raises Unreadable and OtherKey."""
    try:
        text = printable_json(read_anybodys(path, MOST_BYTES))
        content = from_json(text)
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema != SCHEMA:
            raise Unreadable(str(path), f"wanted schema {SCHEMA} of sketches, found {schema}")
        found = _adapter().validate_json(text)
    except OSError as error:
        raise Unreadable(str(path), os.strerror(error.errno) if error.errno else str(error)) from error
    except ValidationError as error:
        raise Unreadable(str(path), f"no sketches: {error.errors()[0]['msg']}") from error
    except ValueError as error:
        raise Unreadable(str(path), f"no JSON: {error}") from error
    if found.key_id != key_id:
        raise OtherKey(str(path))
    if found.page_bytes != OWN_PAGE_BYTES:
        raise Unreadable(str(path), f"pages have {found.page_bytes} bytes there, and {OWN_PAGE_BYTES} here")
    if reason := _contradiction(found):
        raise Unreadable(str(path), f"no sketches: {reason}")
    return found


def _contradiction(found: HostSketch) -> str | None:
    """What of it nobody could have seen; None for nothing."""
    for guest in found.guests:
        values = [value for some in guest.contents.values() for value in some]
        counts = (guest.zero_pages, guest.filled_pages, guest.distinct_pages, guest.filled_pages - guest.distinct_pages)
        if min(counts) < 0:
            return f"{guest.name} has impossible numbers of pages"
        if len(values) > MOST_CONTENTS or any(len(value) != 2 * VALUE_BYTES for value in values):
            return f"{guest.name} has impossible contents"
        if min(guest.contents, default=guest.zeros) < guest.zeros:
            return f"{guest.name} has contents that are not sampled"
    return None


@cache
def _adapter() -> "TypeAdapter[HostSketch]":
    return TypeAdapter(HostSketch)
