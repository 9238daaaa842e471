"""A process whose pages change when it is told to, for tests and the bench."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHANGER = str(Path(__file__).parent / "changer.py")


class Changer:
    """A process with unique pages that change when they are told to."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._expect("ready")

    @property
    def pid(self) -> int:
        """The process's ID."""
        return self._process.pid

    def change(self, pages: int) -> None:
        """Has the process write to so many of its pages."""
        assert self._process.stdin
        self._process.stdin.write(f"{pages}\n")
        self._expect(str(pages))

    def _expect(self, word: str) -> None:
        assert self._process.stdout
        assert self._process.stdout.readline().strip() == word


@contextmanager
def changer(mib: int) -> Iterator[Changer]:
    """Starts a changer for the length of a with block."""
    command = [sys.executable, CHANGER, str(mib)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        yield Changer(process)
        process.communicate(timeout=10)
