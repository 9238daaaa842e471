"""Runs a part of this package in a child process that looks into one guest, and may be killed at any moment."""

import selectors
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from ksmtuned_py.model import Guest

STALL_SECONDS = 30.0
"""The time for one answer, which takes much less. After it something must have the guest's memory map locked."""
PATIENCE_SECONDS = 0.5
"""The wait for a killed child to end. It ends at once, unless it waits for such a lock."""
Failure = Callable[[str], Exception]
"""Makes an error of a reason."""


class Helper:
    """A child process that answers one line for each line that it is sent. An empty line shows that it goes on."""

    def __init__(
        self,
        module: str,
        guest: Guest,
        goes_on: Callable[[], None],
        failed: Failure,
        silent: Failure,
        words: Sequence[str] = (),
    ) -> None:
        """Start it; raises what `failed` makes. `silent` makes the error of a child that a guest keeps waiting.

        The child is told the guest's PID and start, and these words.
        """
        self._goes_on = goes_on
        self._failed = failed
        self._silent = silent
        try:
            self._child = subprocess.Popen(  # -P: no module of the current directory, which may be anybody's
                [sys.executable, "-P", "-m", module, str(guest.pid), str(guest.start_ticks), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except OSError as error:
            raise failed(f"no helper can be begun: {error.strerror}") from error

    def ask(self, line: str = "") -> bytes:
        """Send a line, and return the answer; raises what `failed` or `silent` makes."""
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # the child has written why it ended
            self._child.stdin.write(f"{line}\n".encode())
        return self.answer()

    def answer(self) -> bytes:
        """Wait for the next answer; raises what `failed` or `silent` makes."""
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        with selectors.PollSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            while selector.select(STALL_SECONDS):
                if (line := self._child.stdout.readline()) != b"\n":
                    break
                self._goes_on()
            else:
                raise self._silent(f"nothing has moved for {STALL_SECONDS:.0f} s")
        if not line:
            raise self._failed(self._child.stderr.read().decode("utf-8", "replace").strip() or "its helper was killed")
        return line

    def close(self) -> None:
        """End the child wherever it is. What it did stays so."""
        self._child.kill()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(PATIENCE_SECONDS)
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            assert stream is not None
            stream.close()
