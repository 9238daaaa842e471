"""Guests for tests that always write (writer.py)."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self


class Writer:
    """A process whose threads write all the time."""

    def __init__(self, name: str, mib: int = 64, command: Sequence[str] = ()) -> None:
        self.name = name
        self.process = subprocess.Popen(
            command or [sys.executable, str(Path(__file__).parent / "writer.py"), str(mib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
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
def writers(count: int, mib: int = 64) -> Iterator[list[Writer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Writer(f"writer-{number}", mib)) for number in range(count)]


def runs_freely(one: Writer) -> bool:
    """Whether the process is alive, and neither stopped nor traced."""
    status = Path(f"/proc/{one.pid}/status").read_text()
    return "TracerPid:\t0\n" in status and status.split("State:\t")[1][0] in "RSD"


def stores(one: Writer) -> set[str]:
    """Returns the inodes of the memfds that its pages are merged in."""
    maps = Path(f"/proc/{one.pid}/maps").read_text()
    return {line.split()[4] for line in maps.split("\n") if " /memfd:ksmtuned-py-pages" in line}
