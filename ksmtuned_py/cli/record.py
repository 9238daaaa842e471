"""`ksmtuned-py record`: every tick of a host into a file, without steering it."""

from argparse import ArgumentTypeError, Namespace
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_config, add_file, add_root, add_verb, load_config

if TYPE_CHECKING:
    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.config import Config
    from ksmtuned_py.machine import Machine
    from ksmtuned_py.wait import Signals, Waiter


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
    """Until a signal ends it; raises NotRecorded, NoZstd, ConfigErrors, NoKsm."""
    from ksmtuned_py.daemon import Daemon
    from ksmtuned_py.door import Door
    from ksmtuned_py.machine import open_machine
    from ksmtuned_py.trace.writer import TraceWriter
    from ksmtuned_py.units import MIB
    from ksmtuned_py.wait import Signals

    config = load_config(args).config
    watching = config.model_copy(update={"daemon": config.daemon.model_copy(update={"mode": "observe"})})
    with ExitStack() as undo:
        signals = undo.enter_context(closing(Signals()))
        machine = undo.enter_context(open_machine(Door(str(args.root)), watching))
        writer = undo.enter_context(closing(TraceWriter(args.file, watching, args.max_mib * MIB)))
        waiter = _waiter(undo, signals, machine, watching)
        Daemon(machine.host, machine.in_force, waiter, writer).run()
    print(f"recorded to {args.file}")
    return 0


def _waiter(undo: ExitStack, signals: "Signals", machine: "Machine", config: "Config") -> "Waiter":
    """Woken by what wakes the daemon, so that its ticks are seen."""
    import os

    from ksmtuned_py.cli.terminal import err
    from ksmtuned_py.guests.arrivals import open_arrivals
    from ksmtuned_py.sensors.pressure import open_trigger
    from ksmtuned_py.wait import Waiter

    stall_ms = config.daemon.pressure_trigger_ms
    pressure = open_trigger(machine.door, stall_ms) if stall_ms else None
    if pressure is not None:
        undo.callback(os.close, pressure)
    arrivals = open_arrivals(err().print) if machine.is_this_host else None
    if arrivals is not None:
        undo.enter_context(closing(arrivals))
    return Waiter(signals, pressure=pressure, arrivals=arrivals, heed=machine.heed)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{text}: wanted a whole number from 1 on")
    return number
