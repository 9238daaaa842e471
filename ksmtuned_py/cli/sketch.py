"""`ksmtuned-py sketch` and `ksmtuned-py migrate-check`: what a guest would share on another host."""

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_config, add_file, add_verb, load_config
from ksmtuned_py.cli.terminal import err, out, print_json
from ksmtuned_py.errors import FAILED, KsmtunedError, NoScanner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.door import Door
    from ksmtuned_py.model import Guest
    from ksmtuned_py.scanner.sketch import GuestSketch, HostSketch, Shared

KEY = Path("/etc/ksmtuned-py/sketch.key")
PAGE_TABLE_SHARE = 1 / 512
"""A page of 4 KiB has 8 bytes in a page table."""


@dataclass(eq=False)
class NoSketch(KsmtunedError):
    """A guest's memory could not be read."""

    name: str
    reason: str
    exit_code = FAILED
    template = "{name}: no sketch of it: {reason}"


@dataclass(eq=False)
class NotWritten(KsmtunedError):
    """The file of sketches cannot be written."""

    path: str
    reason: str
    template = "{path}: cannot be written: {reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """What a guest would take and share on one host."""

    host: str
    age_seconds: float
    shares_bytes: int
    low_bytes: int
    high_bytes: int
    keeps_bytes: int
    """What it has for itself in the end."""
    room_bytes: int
    fits: bool
    """Whether there is room for all of it where it lands."""


def add(subparsers: "Subparsers") -> None:
    """Adds both verbs."""
    parser = add_verb(
        subparsers,
        "sketch",
        run,
        "write what this host's guests hold, for comparison with other hosts",
        "Reads every private page once, at half a core at most. Of each guest 8 KiB are written: keyed hashes of a "
        "sample of its contents. Nobody without the key can tell a content from them.",
    )
    add_file(parser, "file", "where to write it; it replaces an older one")
    _add_key(parser)
    add_config(parser)
    parser = add_verb(
        subparsers,
        "migrate-check",
        migrate_check,
        "what a guest takes and shares on another host",
        "Where a guest lands, nothing of it is shared and all its pages are small. What it will share there is told "
        "from the sketches of that host. Exits with 0 when there is room for it on one of them, with 1 when there is "
        "on none, and with 2 when nobody can tell.",
    )
    parser.add_argument("guest", metavar="GUEST", help="its name, UUID or PID")
    add_file(parser, "--there", "sketches of other hosts, from ksmtuned-py sketch", nargs="+", default=[])
    parser.add_argument("--json", action="store_true", help="for programs")
    _add_key(parser)
    add_config(parser)


def _add_key(parser: ArgumentParser) -> None:
    add_file(parser, "--key", "the key of the fleet, the same on all its hosts (default: %(default)s)", default=KEY)


def run(args: Namespace) -> int:
    """Writes the sketches of all guests; raises NoKey, NotWritten. Returns FAILED when one could not be read."""
    import platform
    import time

    from ksmtuned_py.door import Door
    from ksmtuned_py.model.room import room_bytes
    from ksmtuned_py.scanner.sketch import HostSketch, key_id
    from ksmtuned_py.scanner.sketchfile import read_key, write
    from ksmtuned_py.sensors.memory import read_memory
    from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES

    door, key = Door(), read_key(args.key)
    found, problems = _sketches(_guests(args, door), door, key)
    host = HostSketch(
        host=platform.node(),
        unix_seconds=time.time(),
        key_id=key_id(key),
        page_bytes=OWN_PAGE_BYTES,
        room_bytes=room_bytes(read_memory(door)),
        guests=tuple(found),
    )
    try:
        write(args.file, host)
    except OSError as error:
        raise NotWritten(str(args.file), error.strerror or str(error)) from error
    out().print(f"sketches of {len(found)} guests are in {args.file}")
    for problem in problems:
        err().print(problem, style="yellow")
    return FAILED if problems else 0


def migrate_check(args: Namespace) -> int:
    """Prints what the guest takes where it lands, and shares there; raises NoKey, OtherKey, NoSketch, UnknownGuest."""
    from ksmtuned_py.cli.guests import find_guest
    from ksmtuned_py.door import Door
    from ksmtuned_py.scanner.sketch import key_id
    from ksmtuned_py.scanner.sketchfile import read, read_key

    door = Door()
    guest = find_guest(_guests(args, door), args.guest)
    takes = _takes_bytes(guest)
    hosts: list[HostSketch] = []
    landings: list[Landing] = []
    if args.there:
        key = read_key(args.key)
        hosts = [read(path, key_id(key)) for path in args.there]
        found, problems = _sketches([guest], door, key)
        if not found:
            raise NoSketch(guest.name, problems[0].partition(": ")[2] if problems else "it has ended")
        landings = [_landing(host, takes, found[0]) for host in hosts]
        landings.sort(key=lambda one: (one.fits, one.shares_bytes), reverse=True)
    if args.json:
        _print_json(guest.name, takes, landings)
    else:
        _print(guest.name, takes, landings)
    return FAILED if landings and not any(one.fits for one in landings) else 0


def _guests(args: Namespace, door: "Door") -> "Sequence[Guest]":
    from ksmtuned_py.daemon.machine import known_guests

    return list(known_guests(door, load_config(args).config))


def _sketches(guests: "Sequence[Guest]", door: "Door", key: bytes) -> "tuple[list[GuestSketch], list[str]]":
    from rich.text import Text

    from ksmtuned_py.scanner.target import Target

    try:
        from ksmtuned_py.scanner.sketching import Sketching
    except ModuleNotFoundError as error:
        raise NoScanner("numpy and xxhash") from error

    found, problems = [], []
    for guest in guests:
        with err().status(Text(f"reading {guest.name}")):
            reading = Sketching(Target(pid=guest.pid, start_ticks=guest.start_ticks, name=guest.name), door, key)
            sketch = reading.answer()
        if sketch:
            found.append(sketch)
        elif not reading.has_ended:
            problems.append(f"{guest.name}: {reading.problem}")
    return found, problems


def _takes_bytes(guest: "Guest") -> int:
    """All its memory, with what is merged as pages of zeros and so in no resident size, and its page tables."""
    from ksmtuned_py.policy.demand import landing_bytes
    from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES

    return round(landing_bytes(guest, OWN_PAGE_BYTES) * (1 + PAGE_TABLE_SHARE))


def _landing(host: "HostSketch", takes_bytes: int, sketch: "GuestSketch") -> Landing:
    import time

    from ksmtuned_py.scanner.sketch import shared
    from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES

    found: Shared = shared(sketch, host.guests)
    shares = found.pages * OWN_PAGE_BYTES
    return Landing(
        host=host.host,
        age_seconds=max(0.0, time.time() - host.unix_seconds),
        shares_bytes=shares,
        low_bytes=found.low * OWN_PAGE_BYTES,
        high_bytes=found.high * OWN_PAGE_BYTES,
        keeps_bytes=max(0, takes_bytes - shares),
        room_bytes=host.room_bytes,
        fits=takes_bytes <= host.room_bytes,
    )


def _print_json(name: str, takes_bytes: int, landings: list[Landing]) -> None:
    print_json({"guest": name, "takes_bytes": takes_bytes, "there": landings})


def _print(name: str, takes_bytes: int, landings: list[Landing]) -> None:
    from ksmtuned_py.units import human_bytes

    begin = f"{name} takes {human_bytes(takes_bytes)} where it lands"
    out().print(f"{begin}: nothing is shared at first, and its pages are small", style="bold")
    for one in landings:
        for row in _rows(one):
            out().print(row)


def _rows(one: Landing) -> "Iterator[str]":
    from ksmtuned_py.units import human_bytes, human_seconds

    room = human_bytes(one.room_bytes)
    yield f"  {one.host}, {human_seconds(one.age_seconds)} ago: {'fits' if one.fits else 'does not fit'} into {room}"
    between = f"{human_bytes(one.low_bytes)} to {human_bytes(one.high_bytes)}"
    yield f"    shares {human_bytes(one.shares_bytes)} in the end ({between}), keeps {human_bytes(one.keeps_bytes)}"
