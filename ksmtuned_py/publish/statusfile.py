"""Writes and reads the status file: all that the daemon knows, as JSON, for `status`, `why` and other readers.

Schema 1 is an object. Fields may be added, but never changed or taken away without another schema number:
    schema, version, pid, written_unix_seconds
    line            the daemon in one line
    saved_bytes, profit_bytes, cpu_seconds_per_saved_gib
    snapshot        the host as it was seen, with its guests; KSM's knobs and counters
    decision        mode, rule, reason, wanted knobs, what every rule said, what would change it
    outcome         the writes, and how they ended
    tick_seconds    how long the tick took
    totals          sums since the daemon started
    decisions       the last times at which another mode or rule won, the newest first
"""

import json
import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from ksmtuned_py import __version__
from ksmtuned_py.door import MOST_BYTES, unreadable
from ksmtuned_py.door.runtime import PUBLIC_MODE, read_anybodys, replace_file
from ksmtuned_py.door.text import printable_json
from ksmtuned_py.errors import Unreadable
from ksmtuned_py.model import Decision, Outcome, Snapshot
from ksmtuned_py.publish.decided import Change
from ksmtuned_py.publish.totals import Totals
from ksmtuned_py.publish.words import status_line
from ksmtuned_py.report import Report

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The content of the status file. It leaves out the trend, whose shape is the policies' own business."""

    schema: int = SCHEMA
    version: str
    pid: int
    written_unix_seconds: float
    line: str
    saved_bytes: int
    profit_bytes: int
    cpu_seconds_per_saved_gib: float | None
    snapshot: Snapshot
    decision: Decision
    outcome: Outcome
    tick_seconds: float
    totals: Totals
    decisions: tuple[Change, ...] = ()

    @property
    def age_seconds(self) -> float:
        """The seconds since its look at the host, by the clock that nobody sets."""
        return max(0.0, time.monotonic() - self.snapshot.clock.monotonic_seconds)

    @property
    def overdue_seconds(self) -> float:
        """The seconds by which the next one is late; 0 while it is not.

        More than a tick means a hung or dead daemon.
        """
        return max(0.0, self.age_seconds - self.decision.next_tick_seconds)


def write(path: Path, text: bytes) -> None:
    """Replace the file in one step, so that nobody reads half of one; raises OSError."""
    replace_file(path, text, PUBLIC_MODE)


def read(path: Path) -> Status | None:
    """Read what the daemon wrote last; raises NotPermitted or Unreadable. None without a file, so without a daemon."""
    try:
        text = read_anybodys(path, MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(str(path), error) from error
    return parse(str(path), text)


def remove(path: Path) -> None:
    """Remove the file, because the daemon ends."""
    path.unlink(missing_ok=True)


def parse(path: str, text: bytes) -> Status:
    """Read the text of a status file; raises Unreadable, which says what is wrong with it.

    The file is as trustworthy as the user of the daemon, and root may ask, so its texts are escaped once more.
    """
    try:
        text = printable_json(text)
        content = json.loads(text)
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema != SCHEMA:
            raise Unreadable(path, f"wanted status schema {SCHEMA}, found {schema}: another version wrote it")
        return _adapter().validate_json(text)
    except ValidationError as error:
        raise Unreadable(path, f"no status of schema {SCHEMA}: {_first(error)}") from error
    except ValueError as error:
        raise Unreadable(path, f"no JSON: {error}") from error


def status_json(status: Status) -> bytes:
    """The text of a status file. Infinite numbers become "Infinity", and are read back as infinite."""
    return to_json(status, inf_nan_mode="strings")


def document(text: bytes, *, running: bool) -> bytes:
    """What readers of JSON get: the text of a status, and first whether it is a daemon's word, or one look."""
    return b'{"daemon_running":%s,%s' % (b"true" if running else b"false", text[1:])


def status_of(report: Report, totals: Totals, decisions: tuple[Change, ...] = ()) -> Status:
    """The status of this process now."""
    return Status(
        version=__version__,
        pid=os.getpid(),
        written_unix_seconds=time.time(),
        line=status_line(report, totals),
        saved_bytes=report.snapshot.saved_bytes,
        profit_bytes=report.snapshot.profit_bytes,
        cpu_seconds_per_saved_gib=totals.cpu_seconds_per_saved_gib(report.snapshot),
        snapshot=report.snapshot,
        decision=report.decision,
        outcome=report.outcome,
        tick_seconds=report.tick_seconds,
        totals=totals,
        decisions=decisions,
    )


@cache
def _adapter() -> "TypeAdapter[Status]":
    return TypeAdapter(Status)


def _first(error: ValidationError) -> str:
    first: Any = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
