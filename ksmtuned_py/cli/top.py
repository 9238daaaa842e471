"""`ksmtuned-py top`: status, why and guests on one screen, which follows what happens."""

from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, Namespace
from contextlib import closing
from typing import TYPE_CHECKING, Any

from ksmtuned_py.cli.options import add_config, add_root, add_runtime_dir, add_verb
from ksmtuned_py.cli.terminal import out

if TYPE_CHECKING:
    from signal import Signals

    from ksmtuned_py.cli.live.watching import Watching
    from ksmtuned_py.cli.options import Subparsers

LEAST_SECONDS, MOST_SECONDS = 0.2, 3600.0
SIZE = (80, 24)
"""The size of a screen where there is none, and COLUMNS and LINES do not say."""


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "top",
        run,
        "what KSM saves and costs now, on one screen that follows it; keys sort, filter, and open a guest",
        "Shows what status, why and guests say: the daemon's word, or where none runs what the kernel says. "
        "The key ? lists the keys.",
    )
    add_config(parser)
    add_root(parser)
    add_runtime_dir(parser)
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=2.0,
        metavar="SECONDS",
        help="between two looks (default: %(default)g). The daemon writes its word once per tick",
    )
    parser.add_argument(
        "--once", action="store_true", help="print one screen as plain text, as is done where there is no terminal"
    )
    parser.add_argument("--json", action=_Refused, nargs=0, help=SUPPRESS)


class _Refused(Action):
    """Says who has JSON."""

    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        parser.error("top is for people to look at; ksmtuned-py status --json is for programs")


def run(args: Namespace) -> int:
    """Shows the screen until q is pressed, or once; raises KsmtunedError when not even the first look succeeds."""
    from ksmtuned_py.cli.live.livescreen import can_live
    from ksmtuned_py.cli.live.watching import Watching

    with closing(Watching(args)) as watching:
        if args.once or not can_live():
            return _print_once(watching)
        ended = _show(watching)
    return 0 if ended is None else _end_by(ended)


def _print_once(watching: "Watching") -> int:
    import os
    import shutil

    from ksmtuned_py.cli.live.livescreen import has_only_ascii
    from ksmtuned_py.cli.live.picture import picture
    from ksmtuned_py.cli.live.strokes import in_ascii
    from ksmtuned_py.cli.live.viewing import Viewing

    for line in picture(watching.look(), Viewing(), *shutil.get_terminal_size(SIZE), live=False):
        shown = in_ascii(line) if has_only_ascii(os.environ) else line
        out().print(shown.plain.rstrip())
    return 0


def _show(watching: "Watching") -> "Signals | None":
    """Show the screen to its end, and return the signal that ended it; None after q."""
    import select
    import signal
    import time

    from ksmtuned_py.cli.live.livescreen import live_screen

    first = watching.look()  # what fails here is told in the terminal as it was
    with live_screen((signal.SIGTERM, signal.SIGINT, signal.SIGHUP)) as live:
        live.show(first)
        poll = select.poll()
        poll.register(live.fileno(), select.POLLIN)
        while not live.drain():
            if time.monotonic() >= watching.next_seconds:
                live.show(watching.look())
            poll.poll(max(0.0, watching.next_seconds - time.monotonic()) * 1000)
        return live.ended


def _end_by(number: "Signals") -> int:
    """End as a program does that does not handle the signal."""
    import signal

    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    return 0


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise ArgumentTypeError(f"{text}: wanted seconds, from {LEAST_SECONDS:g} to {MOST_SECONDS:g}")
    return seconds
