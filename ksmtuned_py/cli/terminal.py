"""What the verbs write on: one console for results, one for messages.

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
    """Standard output: what was asked for."""
    return _console(stderr=False)


@cache
def err() -> "Console":
    """Standard error: everything else."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> "Console":
    """Text is taken as it is: no [markup] (a TOML header would be some), no :emoji:, no break at 80 in a pipe."""
    from rich.console import Console  # 40 ms that --help and the daemon need not pay

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


def stop_writing() -> None:
    """The reader went away: let what is still buffered go nowhere, or Python complains about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
