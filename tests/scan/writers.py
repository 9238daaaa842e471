"""Guests for tests that always write (writer.py)."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, Self

MIB = 16
"""The size of a guest, unless its size is what matters."""


class Running(Protocol):
    """A process."""

    @property
    def pid(self) -> int: ...


class Writer:
    """A process whose threads write all the time."""

    def __init__(
        self,
        name: str,
        mib: int = MIB,
        command: Sequence[str] = (),
        idle_seconds: float | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        """`idle_seconds` is what it rests after every second write, where it need not write all the time."""
        self.name = name
        self.process = subprocess.Popen(
            command or [sys.executable, "-m", "tests.scan.writer", str(mib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=os.environ | ({"WRITER_IDLE_SECONDS": str(idle_seconds)} if idle_seconds else {}) | (settings or {}),
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, command: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        answer = self.process.stdout.readline()
        assert answer, f"the guest has ended: {self.process.wait(5)}"
        return answer

    def check(self) -> dict[str, int]:
        words = self.ask("check").split()
        return dict(zip(words[::2], map(int, words[1::2]), strict=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def writers(count: int, mib: int = MIB, idle_seconds: float | None = None) -> Iterator[list[Writer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Writer(f"writer-{number}", mib, (), idle_seconds)) for number in range(count)]


def runs_freely(one: Running) -> bool:
    """Whether the process is alive, and neither stopped nor traced."""
    status = Path(f"/proc/{one.pid}/status").read_text()
    return "TracerPid:\t0\n" in status and status.split("State:\t")[1][0] in "RSD"


def stores(one: Running) -> set[str]:
    """Returns the inodes of the memfds that its pages are merged in."""
    maps = Path(f"/proc/{one.pid}/maps").read_text()
    return {line.split()[4] for line in maps.split("\n") if " /memfd:ksmtuned-py-pages" in line}
