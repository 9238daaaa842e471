"""`ksmtuned-py capacity`: how many more guests fit, and with what chance memory runs out within a day."""

from argparse import ArgumentTypeError, Namespace
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_config, add_file, add_root, add_runtime_dir, add_verb, runtime_of
from ksmtuned_py.cli.terminal import err, out, print_json
from ksmtuned_py.door.text import printable
from ksmtuned_py.errors import KsmtunedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.model import Guest, Snapshot
    from ksmtuned_py.policy.capacity import Outlook
    from ksmtuned_py.policy.demand import DemandRecord

FITS, FITS_NOT = 0, 1
MOST_RISK = 0.5
LEAST_DAYS = 2


@dataclass(eq=False)
class NoEvidence(KsmtunedError):
    """Nothing was recorded from which an answer would follow."""

    reason: str
    template = "nobody can tell how many more guests fit: {reason}"
    hint_template = "the daemon records while it runs; or record with ksmtuned-py record, and name the file by --trace"


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "capacity",
        run,
        "how many more guests fit",
        "Says how many more guests like one of those that run fit, so that memory runs out within 24 hours with no "
        "more than the given chance. It goes by what was recorded: how guests grew, wrote to merged pages, and woke up "
        "together. Exits with 0 when one more fits, with 1 when none does, and with 2 when nobody can tell.",
    )
    parser.add_argument("--guest", metavar="LIKE", help="the model for the next one (default: the median guest)")
    parser.add_argument(
        "--risk",
        type=_risk,
        default=0.01,
        metavar="PERCENT",
        help="the chance that is allowed, like 5%% (default: 1%%)",
    )
    add_file(parser, "--trace", "go by this trace, from ksmtuned-py record, and FILE.1, not by the daemon's record")
    parser.add_argument("--json", action="store_true", help="for programs")
    add_config(parser)
    add_root(parser)
    add_runtime_dir(parser)


def run(args: Namespace) -> int:
    """Prints how many more fit; raises NoEvidence, UnknownGuest, BadTrace."""
    from ksmtuned_py.cli.guests import find_guest
    from ksmtuned_py.policy.capacity import median_guest, missing, outlook

    record, now = _of_trace(args.trace) if args.trace else _of_daemon(args)
    like: Guest | None = find_guest(now.guests, args.guest) if args.guest else median_guest(now)
    if like is None:
        raise NoEvidence("no guest runs that could be the model for the next")
    if reason := missing(record):
        raise NoEvidence(reason)
    found = outlook(record, now, like, args.risk)
    if args.json:
        _print_json(found)
    else:
        _print(found)
    return FITS if found.guests else FITS_NOT


def _risk(text: str) -> float:
    try:
        risk = float(text.removesuffix("%")) / 100
    except ValueError:
        risk = 0
    if not 0 < risk <= MOST_RISK:
        raise ArgumentTypeError(f"{text!r}: wanted a percentage above 0 and up to 50")
    return risk


def _of_daemon(args: Namespace) -> "tuple[DemandRecord, Snapshot]":
    """The record of the daemon, with its last look, or one of our own where none runs."""
    from ksmtuned_py.cli.seen import seen
    from ksmtuned_py.publish import capacityfile

    found, _ = seen(args)
    record = capacityfile.read(runtime_of(args).directory / capacityfile.NAME)
    if record.moments and record.moments[-1].seconds < found.snapshot.clock.monotonic_seconds:
        record.look(found.snapshot)
    return record, found.snapshot


def _of_trace(path: "Path") -> "tuple[DemandRecord, Snapshot]":
    """The record of all ticks of a trace, with the last of them."""
    from ksmtuned_py.policy.demand import DemandRecord
    from ksmtuned_py.trace.reader import open_trace

    record, now = DemandRecord(), None
    older = path.with_name(f"{path.name}.1")
    with err().status("reading the trace"):
        for each in (older, path) if older.exists() else (path,):
            with open_trace(each) as trace:
                for tick in trace.ticks:
                    now = tick.snapshot
                    record.look(now)
    if now is None:
        raise NoEvidence(f"{path} has no tick")
    return record, now


def _print_json(found: "Outlook") -> None:
    from dataclasses import asdict

    print_json({"fits": bool(found.guests), **asdict(found), "is_short": found.is_short})


def _print(found: "Outlook") -> None:
    from ksmtuned_py.units import human_seconds

    # A trace may come from anywhere, so its names are escaped.
    how_many = "no guest more" if not found.guests else f"{found.guests} more guest{'s'[: found.guests > 1]}"
    out().print(f"{how_many} like {printable(found.like)} fit{'s' * (found.guests < 2)}", style="bold")
    for name, value in _rows(found):
        out().print(f"  {name:<16} {value}")
    if found.is_short:
        hours = human_seconds(found.record_seconds)
        err().print(f"from {hours} only: not all hours of a day were seen, so rises count as wider", style="yellow")


def _rows(found: "Outlook") -> "Iterator[tuple[str, str]]":
    from ksmtuned_py.units import human_bytes, human_chance, human_percent, human_seconds

    yield "allowed", f"a chance of {human_percent(found.risk)} that memory runs out within 24 hours"
    yield "with none more", human_chance(found.chance_now)
    if found.guests:
        yield f"with {found.guests} more", human_chance(found.chance)
    lands = "" if found.lands else "; it has no room to land"
    yield f"with {found.guests + 1} more", human_chance(found.chance_one_more) + lands
    landing = human_bytes(found.landing_bytes)
    yield "each takes", f"{human_bytes(found.own_bytes)} for itself, and {landing} where it lands, before it shares"
    place = f"in {printable(found.cgroup)}" if found.cgroup else "on the host, with swap"
    yield "room", f"{human_bytes(found.room_bytes)} {place}; the debt is {human_bytes(found.debt_bytes)}"
    part = human_seconds(found.part_seconds)
    yield "record", f"{_long(found.record_seconds)}, of which {found.rises} parts of {part} were compared"


def _long(seconds: float) -> str:
    """A long time for a person, in days once it is some."""
    from ksmtuned_py.units import human_seconds

    days = seconds / 86_400
    return human_seconds(seconds) if days < LEAST_DAYS else f"{days:.0f} days"
