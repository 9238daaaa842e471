"""`python -m bench.waking`: one guest that wakes up and rests again, as it is told by lines on standard input.

Awake it writes to a part of what it shares with others. At rest that part is equal to theirs again.
"""

import os
import subprocess
import sys
from random import Random
from typing import Self

from ksmtuned_py.cli.workload import PAGE_BYTES, Region, equal_block
from ksmtuned_py.units import MIB

EQUAL_BYTES, UNIQUE_BYTES = 44 * MIB, 16 * MIB
SEED = 20_262


class Shared(Region):
    """Pages that every guest has, of which the first may be written to."""

    def begin_with(self, own_pages: int, chance: Random) -> None:
        """Gives so many of the first pages a content of their own, and all others that of all guests again."""
        for page in range(len(self)):
            wanted = chance.getrandbits(63) | 1 << 63 if page < own_pages else page
            if page < own_pages or self._stamps[page] != page:
                self._stamps[page] = wanted
                self._stamp(page)


class WakingGuest:
    """A guest as a child process, which ends with its parent."""

    def __init__(self, words: list[str]) -> None:
        """Starts it by these words, and then the interpreter's."""
        self._process = subprocess.Popen(
            [*words, sys.executable, "-P", "-m", "bench.waking"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(os.getcwd())},  # noqa: PTH109 - for a child, as text
        )
        self.pid = self._process.pid

    def wait_ready(self) -> None:
        """Waits until its memory is filled."""
        assert self._process.stdout
        assert self._process.stdout.readline() == b"ready\n"

    def write_to(self, share: float) -> None:
        """Has it write to that share of what it shares with others; with 0 it rests."""
        assert self._process.stdin
        self._process.stdin.write(f"{round(share * EQUAL_BYTES / PAGE_BYTES)}\n".encode())
        self._process.stdin.flush()

    @property
    def runs(self) -> bool:
        """Whether it has not ended, as by a lack of memory."""
        return self._process.poll() is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Fills its memory, says so, and then does as it is told."""
    shared = Shared(EQUAL_BYTES, equal_block(SEED))
    unique = Region(UNIQUE_BYTES, os.urandom(MIB))
    chance = Random(os.getpid())
    print("ready", flush=True)
    for line in sys.stdin:
        shared.begin_with(int(line), chance)
    assert len(unique)


if __name__ == "__main__":
    main()
