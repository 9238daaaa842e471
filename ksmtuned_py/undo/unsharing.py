"""Has one guest's pages unshared by a child process, in portions, each of which may be the last."""

import selectors
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ksmtuned_py.errors import FAILED, KsmtunedError
from ksmtuned_py.model import Guest

STALL_SECONDS = 30.0
"""The time for one portion, which takes 20 ms. After it something must have the guest's memory map locked."""
PATIENCE_SECONDS = 0.5
"""The wait for a killed child to end. It ends at once, unless it waits for such a lock."""


@dataclass(eq=False)
class NotUnshared(KsmtunedError):
    """The pages of a guest cannot be unshared from outside."""

    reason: str
    exit_code = FAILED
    template = "its pages cannot be unshared from outside: {reason}"


@dataclass(eq=False)
class NoAnswer(NotUnshared):
    """A guest kept its helper waiting: something has its memory map locked, and run=2 would wait for that, too."""


class Unsharing:
    """Unshares one guest's pages in a child process. Nothing is unshared before `go_on`."""

    def __init__(self, guest: Guest, progress: Callable[[str], None] = lambda _: None) -> None:
        """Start the child; raises NotUnshared. `progress` hears that the search for merged pages goes on."""
        self._looks = f"{guest.name}: its merged pages are looked for ..."
        self._progress = progress
        try:
            self._child = subprocess.Popen(  # -P: no module of the current directory, which may be anybody's
                [sys.executable, "-P", "-m", "ksmtuned_py.undo.unshare", str(guest.pid), str(guest.start_ticks)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except OSError as error:
            raise NotUnshared(f"no helper can be begun: {error.strerror}") from error

    def merged_pages(self) -> int:
        """The number of pages that it shares at the beginning; raises NotUnshared.

        To be called once, before all else.
        """
        return self._answer()[0]

    def go_on(self) -> tuple[int, int]:
        """Do one portion; raises NotUnshared.

        Returns its pages and how many are the guest's own now; (0, 0) at the end.
        """
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # the child has written why it ended
            self._child.stdin.write(b"\n")
        looked_at, alone = self._answer()
        return looked_at, alone

    def close(self) -> None:
        """End the child wherever it is. What is unshared stays so."""
        self._child.kill()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(PATIENCE_SECONDS)
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            assert stream is not None
            stream.close()

    def _answer(self) -> list[int]:
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        with selectors.PollSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            while selector.select(STALL_SECONDS):
                if (line := self._child.stdout.readline()) != b"\n":
                    break
                self._progress(self._looks)
            else:
                raise NoAnswer(f"nothing has moved for {STALL_SECONDS:.0f} s")
        if not line:
            raise NotUnshared(self._child.stderr.read().decode("utf-8", "replace").strip() or "its helper was killed")
        return [int(number) for number in line.split()]
