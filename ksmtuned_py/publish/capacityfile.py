"""Writes and reads the record of what memory was wanted for, so that it outlasts a restart of the daemon.

Its first line is the head, and each further one a moment, with what every guest had, in KiB.
"""

import json
from array import array
from math import isfinite
from pathlib import Path
from sys import intern
from typing import Any

from ksmtuned_py.door.runtime import PUBLIC_MODE, read_anybodys, replace_file
from ksmtuned_py.errors import Unreadable
from ksmtuned_py.policy.demand import STEPS, DemandRecord, Moment
from ksmtuned_py.units import KIB, MIB

NAME = "capacity.jsonl"
"""Its name in the runtime directory."""
SCHEMA = 1
MOST_BYTES = 8 * MIB
"""A full record of 200 guests has 2 MiB."""
MOST_SECONDS = 20 * 365 * 86_400.0
"""No host runs for longer without a boot. A record of longer would take ages to go through."""


def write(path: Path, record: DemandRecord) -> None:
    """Replace the file in one step; raises OSError."""
    lines = [json.dumps({"schema": SCHEMA, "step_seconds": record.step_seconds})]
    before: tuple[str, ...] | None = None
    for moment in record.moments:
        lines.append(json.dumps(_line(moment, with_guests=moment.guests != before)))
        before = moment.guests
    replace_file(path, "\n".join([*lines, ""]).encode(), PUBLIC_MODE)


def read(path: Path) -> DemandRecord:
    """Read what was written; an empty record where there is no file. Raises Unreadable for anything else."""
    try:
        head, *lines = map(_parsed, read_anybodys(path, MOST_BYTES).decode().splitlines())
        if head["schema"] != SCHEMA:
            raise Unreadable(str(path), f"wanted schema {SCHEMA}, found {head['schema']}: another version wrote it")
        record = DemandRecord(step_seconds=STEPS[STEPS.index(head["step_seconds"])])
        guests: tuple[str, ...] = ()
        for line in lines:
            guests = tuple(intern(str(key)) for key in line.get("guests", guests))
            record.add(_moment(line, guests))
    except FileNotFoundError:
        return DemandRecord()
    except OSError as error:
        raise Unreadable(str(path), error.strerror or str(error)) from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise Unreadable(str(path), f"no record of capacity: {type(error).__name__}") from error
    return record


def _parsed(text: str) -> Any:
    """The value of one line; raises ValueError, also for numbers that are none, which JSON does not have."""
    return json.loads(text, parse_constant=int)


def _line(moment: Moment, *, with_guests: bool) -> dict[str, Any]:
    """A moment as an object. Guests have their keys only where they are others than before."""
    content: dict[str, Any] = {
        "seconds": moment.seconds,
        "demand": dict(moment.demand),
        "fullness": moment.fullness,
        "own_kib": [size // KIB for size in moment.own],
    }
    return content | ({"guests": moment.guests} if with_guests else {})


def _moment(line: dict[str, Any], guests: tuple[str, ...]) -> Moment:
    own = array("Q", [int(size) * KIB for size in line["own_kib"]])
    if len(own) != len(guests):
        raise ValueError("guests")
    demand = {str(place): int(taken) for place, taken in line["demand"].items()}
    array("q", demand.values())  # raises for more than any host can have
    seconds, fullness = float(line["seconds"]), float(line["fullness"])
    if not (0 <= seconds <= MOST_SECONDS and isfinite(fullness)):
        raise ValueError("seconds, fullness")
    return Moment(seconds, demand, guests, own, fullness)
