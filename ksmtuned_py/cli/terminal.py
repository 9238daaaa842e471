"""The consoles that the verbs write on, one for results and one for messages.

rich leaves colours out where the stream is no terminal, TERM is dumb, or NO_COLOR is set (https://no-color.org).
"""

import os
import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@cache
def out() -> "Console":
    """The console on standard output, for what was asked for."""
    return _console(stderr=False)


@cache
def err() -> "Console":
    """The console on standard error, for everything else."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> "Console":
    """Make a console that takes text as it is.

    It knows no [markup], which a TOML header would be, and no :emoji:. It breaks no line at 80 in a pipe.
    """
    from rich.console import Console  # takes 40 ms, which --help and the daemon need not pay

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


def stop_writing() -> None:
    """Discard what is still buffered when the reader went away, or Python complains at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def takes_output() -> bool:
    """Whether standard output takes a line more. What it did not take may be lost, so nothing else tells."""
    try:
        print(flush=True)
    except OSError:
        return False
    return True
