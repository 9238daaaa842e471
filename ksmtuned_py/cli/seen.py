"""Gets the running daemon's word, or a look of our own, for all verbs that tell how things are."""

from argparse import Namespace
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import load_config, runtime_of
from ksmtuned_py.model import GuestKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psutil import Process

    from ksmtuned_py.config import Config
    from ksmtuned_py.daemon.machine import Partners
    from ksmtuned_py.door import Door
    from ksmtuned_py.door.runtime import Runtime
    from ksmtuned_py.model import Guest, Snapshot
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
    return found if found and is_alive(found) else None


def seen(args: Namespace) -> "tuple[Status, bool]":
    """The daemon's word and True, or where none runs, one look of our own without writing and False."""
    found = daemons_word(args)
    if found is not None:
        return found, True
    with own_looks(args) as look:
        return look(), False


def seen_anew(args: Namespace, door: "Door", config: "Config") -> "tuple[Snapshot, Status | None]":
    """A look of our own, with what only the daemon knows of guests, and its word, if one runs; raises NoScanner."""
    from ksmtuned_py.daemon.machine import look

    now, word = look(door, config, _partners(runtime_of(args), door)), daemons_word(args)
    known = {guest.key: guest for guest in word.snapshot.guests} if word else {}
    return replace(now, guests=tuple(_as_known(guest, known.get(guest.key)) for guest in now.guests)), word


def _as_known(guest: "Guest", known: "Guest | None") -> "Guest":
    return replace(guest, switched_off=known.switched_off, losing_passes=known.losing_passes) if known else guest


def lateness(found: "Status") -> str | None:
    """The sentence that the daemon hangs; None when it does not."""
    from ksmtuned_py.units import human_seconds

    if found.overdue_seconds <= LATE_SECONDS:
        return None
    return f"daemon {found.pid} is late by {human_seconds(found.overdue_seconds)}: it hangs"


def is_alive(found: "Status") -> bool:
    """Whether the process that wrote a status still runs."""
    return process_at(found.pid, found.snapshot.clock.monotonic_seconds) is not None


def process_at(pid: int, monotonic_seconds: float) -> "Process | None":
    """The process that had a PID at that time since the boot; None when it has ended.

    Another one may have its PID by now. When a process started is not asked in seconds since 1970: they move with every
    step of the clock, as soon after a boot.
    """
    import time

    import psutil

    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        age_seconds = time.time() - process.create_time()
        if time.monotonic() - age_seconds <= monotonic_seconds <= time.monotonic():
            return process
    return None


@contextmanager
def own_looks(args: Namespace) -> "Iterator[Callable[[], Status]]":
    """Look at the host as a daemon would that writes nothing, as often as one likes in a with block."""
    from ksmtuned_py.daemon.machine import looking
    from ksmtuned_py.door import Door
    from ksmtuned_py.policy.trend import Trend
    from ksmtuned_py.publish.decided import Change, changes_after
    from ksmtuned_py.publish.statusfile import status_of
    from ksmtuned_py.publish.totals import Totals
    from ksmtuned_py.tick import tick

    door, watching = Door(str(args.root)), load_config(args).config.watching
    trend, totals = Trend.begin(watching), Totals()
    changes: tuple[Change, ...] = ()

    def look() -> "Status":
        nonlocal trend, totals, changes
        report = tick(machine.host, watching, trend)
        trend, totals, changes = report.trend, totals.after(report), changes_after(changes, report)
        return status_of(report, totals, changes)

    with looking(door, watching, _partners(runtime_of(args), door)) as machine:
        yield look


def _partners(runtime: "Runtime", door: "Door") -> "Partners":
    """Those who tell what a daemon that runs no more has left: a pause, and guests that are switched off."""
    from ksmtuned_py.daemon.machine import Partners
    from ksmtuned_py.guests.ledger import Ledger

    return Partners(pause=runtime.pause, switches=_Left(Ledger(runtime.switched_path, door).peek()))
