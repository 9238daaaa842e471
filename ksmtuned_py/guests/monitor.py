"""Parses the answers of QEMU's monitor. Raises Garbage. Pure.

A guest may have taken over its QEMU, so an answer may be anything.
"""

import json
from dataclasses import dataclass
from typing import Any

from ksmtuned_py.door.text import printable
from ksmtuned_py.errors import Garbage

BACKENDS_MAX = 1024
"""The most pieces of memory that are believed; no guest has so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBackend:
    """One piece of a guest's memory, as QEMU has it."""

    name: str
    size_bytes: int
    merge: bool
    shared: bool


def parse_answer(command: str, text: str) -> tuple[Any, str | None]:
    """The value that a command returned, and its error, which is None when there is none."""
    try:
        answer = json.loads(text)
        refusal = answer.get("error")
        return (None, printable(str(refusal.get("desc", refusal)))) if refusal else (answer["return"], None)
    except (ValueError, LookupError, AttributeError, RecursionError) as error:
        raise _garbage(command, text) from error


def parse_backends(answer: Any) -> tuple[MemoryBackend, ...]:
    """The pieces of memory in the answer to query-memdev."""
    try:
        found = tuple(_backend(each) for each in answer[: BACKENDS_MAX + 1])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _garbage("query-memdev", str(answer)) from error
    if len(found) > BACKENDS_MAX:
        raise _garbage("query-memdev", str(answer))
    return found


def _backend(each: dict[str, Any]) -> MemoryBackend:
    size, merge = each["size"], each["merge"]
    if not isinstance(size, int) or not isinstance(merge, bool):
        raise TypeError
    return MemoryBackend(name=str(each.get("id", "")), size_bytes=size, merge=merge, shared=bool(each.get("share")))


def _garbage(command: str, text: str) -> Garbage:
    return Garbage(f"QEMU's {command}", text[:60], "an answer of QEMU's")
