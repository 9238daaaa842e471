"""The consoles that the verbs write on, one for results and one for messages.

rich leaves colours out where the stream is no terminal, TERM is dumb, or NO_COLOR is set (https://no-color.org).
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from functools import cache
from io import StringIO, TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

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

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            """Leave the exit code to the command line; rich would end it with 1."""
            raise BrokenPipeError

    return Plain(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


def print_json(content: object) -> None:
    """Print JSON for programs, in ASCII, which every locale has. JSON has no infinite numbers, so they are texts."""
    import json

    from pydantic_core import to_jsonable_python  # its own JSON has no bytes of an argument that are no text

    text = json.dumps(to_jsonable_python(content))
    print(json.dumps(json.loads(text, parse_constant=str), indent=2))


class _Messages:
    """Standard error. What a full disk, or a reader who left, does not take is lost, and changes no exit code."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def forgiving() -> Iterator[None]:
    """Let nothing end a verb that standard error does not take, nor a character that the locale has not."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    stream = sys.stderr or StringIO()  # there is none where it was closed, and argparse fails without one
    messages: Any = _Messages(stream)
    try:
        with redirect_stderr(messages):
            yield
    finally:
        try:
            stream.flush()
        except OSError:
            stop_writing(stream)


def stop_writing(stream: TextIO | None = None) -> None:
    """Discard what is still buffered when the reader went away, or Python complains at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), (stream or sys.stdout).fileno())


def takes_output() -> bool:
    """Whether standard output takes a line more. What it did not take may be lost, so nothing else tells."""
    try:
        print(flush=True)
    except OSError:
        return False
    return True
