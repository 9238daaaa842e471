"""The command line. It picks the verb, and is the one place that prints errors and chooses exit codes."""

import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from signal import SIG_DFL, SIGINT, default_int_handler, getsignal, signal

from ksmtuned_py import __version__
from ksmtuned_py.cli import terminal
from ksmtuned_py.errors import FAILED, KsmtunedError

PROG = "ksmtuned-py"
SUMMARY = "steers the kernel's memory merging (KSM) on KVM hosts, and says why"
VERBS: Mapping[str, str] = {
    "run": "run",
    "status": "status",
    "why": "status",
    "guests": "guests",
    "top": "top",
    "fleet": "fleet",
    "doctor": "doctor",
    "capacity": "capacity",
    "sketch": "sketch",
    "migrate-check": "sketch",
    "scan": "scan",
    "demo": "demo",
    "simulate": "simulate",
    "record": "record",
    "replay": "replay",
    "pause": "pause",
    "resume": "pause",
    "huge": "huge",
    "reload": "reload",
    "unmerge": "unmerge",
    "exec": "execute",
    "restore": "restore",
    "check": "check",
    "import-legacy": "importlegacy",
    "completion": "completion",
}
"""The module of each verb, in the order of --help. Each has add(subparsers), which names its run(args)."""
MADE_OF_ALL = "completion"
"""The verb that needs the parsers of all others."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, which is 128 + SIGINT, as shells have it."""
NOBODY_READS = 141
"""The exit code when the reader left, as `head` does: 128 + SIGPIPE. For some verbs 1 is an answer."""


@dataclass(eq=False)
class NotPrinted(KsmtunedError):
    """What was asked for could not be written on standard output."""

    reason: str
    template = "standard output cannot be written: {reason}"


def build_parser(verb: str | None = None) -> ArgumentParser:
    """The parser of the whole command line, of which the manual pages and the completion are made; or of one verb.

    To load all verbs takes a third of the time of a short one.
    """
    parser = ArgumentParser(PROG, description=f"{PROG} {SUMMARY}.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in dict.fromkeys(VERBS.values()) if verb is None else (VERBS[verb],):
        import_module(f"{__package__}.{module}").add(subparsers)
    parser.set_defaults(command_line=parser)  # for the completion, which is made from it
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code. Any error but KsmtunedError is a bug, and keeps its traceback."""
    with terminal.forgiving():
        return _told(argv)


def _told(argv: Sequence[str] | None) -> int:
    """Runs one verb, prints the error that ends it, and returns the exit code."""
    try:
        if getsignal(SIGINT) is SIG_DFL:
            signal(SIGINT, default_int_handler)
        return _run(argv)
    except KsmtunedError as error:
        _tell(error)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        terminal.stop_writing()
        return NOBODY_READS
    except OSError as error:
        if terminal.takes_output():
            raise
        terminal.stop_writing()
        _tell(NotPrinted(error.strerror or str(error)))
        return FAILED


def _run(argv: Sequence[str] | None) -> int:
    """Runs one verb, and writes what it printed now: at exit nobody could handle a full disk or a reader that left."""
    try:
        args = build_parser(_verb(argv)).parse_args(argv)
    except SystemExit as ended:
        if not ended.code:  # --help and --version print, too
            print(end="", flush=True)
        raise
    code: int = args.run(args)
    print(end="", flush=True)
    return code


def _verb(argv: Sequence[str] | None) -> str | None:
    """The verb that is asked for; None where all parsers are wanted, as by --help or for a word that is none."""
    first = next(iter(sys.argv[1:] if argv is None else argv), "")
    return first if first in VERBS and first != MADE_OF_ALL else None


def _tell(error: KsmtunedError) -> None:
    from rich.text import Text

    from ksmtuned_py.door.text import printable_lines

    # Files and answers of others are quoted in errors, and none of them steers the terminal.
    terminal.err().print(Text.assemble((f"{PROG}: error: ", "bold red"), printable_lines(str(error))))
    if error.hint:
        terminal.err().print(Text.assemble(("hint: ", "bold"), printable_lines(error.hint)))
