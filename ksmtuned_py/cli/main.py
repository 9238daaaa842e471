"""The command line. It picks the verb, and is the one place that prints errors and chooses exit codes."""

from argparse import ArgumentParser
from collections.abc import Sequence

from ksmtuned_py import __version__
from ksmtuned_py.cli import (
    capacity,
    check,
    completion,
    demo,
    doctor,
    execute,
    fleet,
    guests,
    huge,
    importlegacy,
    pause,
    record,
    reload,
    replay,
    restore,
    run,
    scan,
    simulate,
    sketch,
    status,
    terminal,
    top,
    unmerge,
)
from ksmtuned_py.errors import FAILED, KsmtunedError

PROG = "ksmtuned-py"
SUMMARY = "steers the kernel's memory merging (KSM) on KVM hosts, and says why"
VERBS = (
    run,
    status,
    guests,
    top,
    fleet,
    doctor,
    capacity,
    sketch,
    scan,
    demo,
    simulate,
    record,
    replay,
    pause,
    huge,
    reload,
    unmerge,
    execute,
    restore,
    check,
    importlegacy,
    completion,
)
"""The modules of the verbs, in the order of --help. Each has add(subparsers), which names its run(args)."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, which is 128 + SIGINT, as shells have it."""


def build_parser() -> ArgumentParser:
    """The parser of the whole command line. The manual pages and the completion are made from it."""
    parser = ArgumentParser(PROG, description=f"{PROG} {SUMMARY}.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb in VERBS:
        verb.add(subparsers)
    parser.set_defaults(command_line=parser)  # for the completion, which is made from it
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code. Any error but KsmtunedError is a bug, and keeps its traceback."""
    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
        print(end="", flush=True)  # now, because at exit nobody could handle a reader that went away
        return code
    except KsmtunedError as error:
        _tell(error)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        terminal.stop_writing()
        return FAILED


def _tell(error: KsmtunedError) -> None:
    from rich.text import Text

    terminal.err().print(Text.assemble((f"{PROG}: error: ", "bold red"), str(error)))
    if error.hint:
        terminal.err().print(Text.assemble(("hint: ", "bold"), error.hint))
