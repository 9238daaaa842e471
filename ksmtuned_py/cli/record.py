"""`ksmtuned-py record`: writes every tick of a host to a file, without steering it."""

from argparse import ArgumentTypeError, Namespace
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_config, add_file, add_root, add_verb, load_config

if TYPE_CHECKING:
    from ksmtuned_py.cli.options import Subparsers


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "record",
        run,
        "record what is seen and what would be decided, tick by tick",
        "Writes no knob, so it can run beside the daemon, or beside another manager, until SIGTERM or Ctrl-C. "
        "kill -9 costs the last 10 seconds, never the file.",
    )
    add_file(parser, "file", "the trace, a new file; packed when its name ends in .zst")
    add_config(parser)
    add_root(parser)
    parser.add_argument(
        "--max-mib",
        type=_positive,
        default=512,
        metavar="MIB",
        help="for FILE and FILE.1, to which FILE is moved when it has half of it (default: %(default)s)",
    )


def run(args: Namespace) -> int:
    """Records until a signal ends it; raises NotRecorded, NoZstd, ConfigErrors, NoKsm."""
    from ksmtuned_py.cli.terminal import err
    from ksmtuned_py.daemon.loop import Daemon
    from ksmtuned_py.daemon.machine import open_machine
    from ksmtuned_py.daemon.wait import Signals
    from ksmtuned_py.door import Door
    from ksmtuned_py.trace.writer import TraceWriter
    from ksmtuned_py.units import MIB

    watching = load_config(args).config.watching
    with ExitStack() as undo:
        signals = undo.enter_context(closing(Signals()))
        machine = undo.enter_context(open_machine(Door(str(args.root)), watching))
        writer = undo.enter_context(closing(TraceWriter(args.file, watching, args.max_mib * MIB)))
        waiter = undo.enter_context(machine.waiter(signals, err().print))
        Daemon(machine.host, machine.in_force, waiter, writer).run()
    print(f"recorded to {args.file}")
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{text}: wanted a whole number from 1 on")
    return number
