"""`ksmtuned-py scan`: estimates how much merging could save on this host, before anything is turned on."""

from argparse import ArgumentTypeError, Namespace
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_config, add_file, add_root, add_verb, load_config
from ksmtuned_py.errors import NoScanner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure

    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.door import Door
    from ksmtuned_py.scanner.estimate import Sample, Saveable
    from ksmtuned_py.scanner.survey import Tell
    from ksmtuned_py.scanner.target import Target

BAR_WIDTH = 50


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "scan",
        run,
        "estimate what merging could save, by reading guests' pages",
        "Reads every private page once; works with and without KSM, and changes nothing. "
        "What is merged already counts as saveable.",
    )
    parser.add_argument(
        "guests", nargs="*", metavar="GUEST|PID", help="guests by name, or any processes by PID (default: all guests)"
    )
    parser.add_argument(
        "--sample",
        type=_share,
        default=0.01,
        metavar="PERCENT",
        help="of all contents that are compared, like 5%% (default: 1%%); 100%% is exact, at 16 bytes per page",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    add_file(parser, "--plot", "draw a bar for each guest; its name ends in .svg, .png or .pdf")
    add_config(parser)
    add_root(parser)


def run(args: Namespace) -> int:
    """Surveys the guests, prints what it found and draws it; raises NoSuchGuest, NoPlot, NoScanner."""
    from ksmtuned_py.door import Door

    try:
        from ksmtuned_py.scanner.estimate import estimate, estimate_each
        from ksmtuned_py.scanner.survey import survey
    except ModuleNotFoundError as error:
        raise NoScanner("numpy and xxhash") from error

    door = Door(str(args.root))
    targets = _targets(args, door)
    figure = _new_figure(args.plot, len(targets)) if args.plot else None
    with _progress(hidden=args.json) as tell:
        samples = survey(targets, args.sample, door, tell)
    found = estimate(samples, args.sample, _page_bytes())
    each = estimate_each(samples, args.sample, _page_bytes())
    if args.json:
        _print_json(args.sample, samples, each, found)
    else:
        _print(args.sample, samples, each, found)
    if figure:
        from ksmtuned_py.cli.scanplot import draw
        from ksmtuned_py.simulate.plot import write_figure

        draw(figure, samples, each, _sentence(found), _page_bytes())
        write_figure(figure, args.plot)
    return 0


def _new_figure(path: "Path", guests: int) -> "Figure":
    """Make the picture before the long survey, so that the admin hears at once if it cannot be drawn."""
    from ksmtuned_py.cli.scanplot import WIDTH_INCHES, height_inches
    from ksmtuned_py.simulate.plot import new_figure

    return new_figure(path, WIDTH_INCHES, height_inches(guests))


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = 0
    if not 0 < share <= 1:
        raise ArgumentTypeError(f"{text!r}: wanted a percentage above 0 and up to 100")
    return share


def _page_bytes() -> int:
    from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES

    return OWN_PAGE_BYTES


def _targets(args: Namespace, door: "Door") -> "list[Target]":
    from ksmtuned_py.daemon.machine import known_guests
    from ksmtuned_py.scanner.choice import NoSuchGuest, targets

    config = load_config(args).config
    guests = known_guests(door, config)
    if args.guests or guests:
        return targets(args.guests, guests, config.scan, door)
    raise NoSuchGuest("any guest")


@contextmanager
def _progress(*, hidden: bool) -> "Iterator[Tell]":
    from rich.progress import Progress

    from ksmtuned_py.cli.terminal import err

    with Progress(console=err(), transient=True, disable=hidden or not err().is_terminal) as progress:
        task = progress.add_task("reading pages")
        yield lambda done, pages: progress.update(task, completed=done, total=pages)


def _print_json(share: float, samples: "list[Sample]", each: "list[Saveable]", found: "Saveable") -> None:
    import json
    from dataclasses import asdict

    page = _page_bytes()
    guests = [
        {
            "name": one.name,
            "pid": one.pid,
            "group": one.group,
            "bytes": (one.zero_pages + one.filled_pages) * page,
            "saveable_bytes": saveable.saveable_bytes,
            **asdict(saveable),
        }
        for one, saveable in zip(samples, each, strict=True)
    ]
    print(json.dumps({"saveable_bytes": found.saveable_bytes, **asdict(found), "sample": share, "guests": guests}))


def _print(share: float, samples: "list[Sample]", each: "list[Saveable]", found: "Saveable") -> None:
    from rich.table import Table

    from ksmtuned_py.cli.terminal import out
    from ksmtuned_py.units import human_bytes

    page = _page_bytes()
    table = Table(box=None)
    for column in ("guest", "PID", "private", "zero", "within", "across"):
        table.add_column(column, justify="left" if column == "guest" else "right")
    for one, saveable in zip(samples, each, strict=True):
        private = human_bytes((one.zero_pages + one.filled_pages) * page)
        equal = (f"{_least(saveable)}{human_bytes(size)}" for size in (saveable.self_bytes, saveable.cross_bytes))
        table.add_row(one.name, str(one.pid), private, human_bytes(saveable.zero_bytes), *equal)
    out().print(table)
    total = sum(one.zero_pages + one.filled_pages for one in samples) * page
    kinds = (
        ("zero", found.zero_bytes),
        ("within a guest", found.self_bytes),
        ("across guests", found.cross_bytes),
        ("nothing to save", max(0, total - found.saveable_bytes)),
    )
    for kind, size in kinds:
        out().print(f"{kind:>16} {_bar(size, total)} {human_bytes(size)}")
    print(_sentence(found, f" of {human_bytes(total)}"))
    print(f"({_basis(share, found)})")


def _least(found: "Saveable") -> str:
    """The sign before a number of which only the least is known."""
    return "≥ " if found.high is None else ""


def _sentence(found: "Saveable", of_all: str = "") -> str:
    """The sentence on how much could be saved."""
    from ksmtuned_py.units import human_bytes

    if found.high is None:
        return f"at least {human_bytes(found.low)}{of_all} could be saved"
    interval = f", {human_bytes(found.low)} to {human_bytes(found.high)} with 95 % confidence"
    exact = found.low == found.high
    return f"{human_bytes(found.saveable_bytes)}{of_all} could be saved{'' if exact else interval}"


def _basis(share: float, found: "Saveable") -> str:
    """The words for what the estimate is based on, and what would tell more."""
    from ksmtuned_py.units import human_percent

    basis = f"from {human_percent(share)} of the contents"
    if found.high is not None:
        return basis
    return f"{basis}, of which too few are equal to tell how much more; --sample 100% is exact"


def _bar(size: int, total: int) -> str:
    filled = round(BAR_WIDTH * size / total) if total else 0
    return "█" * filled + "·" * (BAR_WIDTH - filled)
