"""Gets the running daemon's word, or a look of our own, for all verbs that tell how things are."""

from argparse import Namespace
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import load_config, runtime_of
from ksmtuned_py.model import GuestKey

if TYPE_CHECKING:
    from pathlib import Path

    from ksmtuned_py.config import Config
    from ksmtuned_py.door.runtime import Runtime
    from ksmtuned_py.publish.statusfile import Status

LATE_SECONDS = 15.0
"""The lateness of a status from which on a warning is due."""


@dataclass(frozen=True, slots=True)
class _Left:
    """The guests that a daemon which ended has left switched off."""

    switched_off: frozenset[GuestKey]


def daemons_word(args: Namespace) -> "Status | None":
    """The status of a running daemon; None when none runs, whatever an ended one has left behind."""
    from ksmtuned_py.publish.statusfile import read

    found = read(runtime_of(args).status_path)
    return found if found and _is_alive(found) else None


def seen(args: Namespace) -> "tuple[Status, bool]":
    """The daemon's word and True, or where none runs, one look of our own without writing and False."""
    found = daemons_word(args)
    if found is not None:
        return found, True
    return _look_once(args.root, load_config(args).config, runtime_of(args)), False


def lateness(found: "Status") -> str | None:
    """The sentence that the daemon hangs; None when it does not."""
    from ksmtuned_py.units import human_seconds

    if found.overdue_seconds <= LATE_SECONDS:
        return None
    return f"daemon {found.pid} is late by {human_seconds(found.overdue_seconds)}: it hangs"


def _is_alive(found: "Status") -> bool:
    """Whether the process that wrote a status still runs. After a kill -9 another process may have its PID."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        return psutil.Process(found.pid).create_time() <= found.written_unix_seconds
    return False


def _look_once(root: "Path", config: "Config", runtime: "Runtime") -> "Status":
    """The status of a daemon that would look and decide now."""
    from ksmtuned_py.daemon.machine import Partners, looking
    from ksmtuned_py.door import Door
    from ksmtuned_py.guests.ledger import Ledger
    from ksmtuned_py.policy.trend import Trend
    from ksmtuned_py.publish.statusfile import status_of
    from ksmtuned_py.publish.totals import Totals
    from ksmtuned_py.tick import tick

    door, watching = Door(str(root)), config.watching
    partners = Partners(pause=runtime.pause, switches=_Left(Ledger(runtime.switched_path, door).peek()))
    with looking(door, config, partners) as machine:
        report = tick(machine.host, watching, Trend.begin(watching))
        return status_of(report, Totals().after(report))
