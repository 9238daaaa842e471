"""The guest of stiff.py, as tests see it."""

import sys
from pathlib import Path

from ksmtuned_py.units import MIB
from tests.scan.writers import Writer


class Stiff(Writer):
    """A guest whose Python runs no more, so that its bytes are looked at from outside."""

    def __init__(self, name: str, mib: int) -> None:
        super().__init__(name, command=(sys.executable, "-m", "tests.scan.stiff", str(mib)))
        assert self.process.stdout
        self._begin, self._size = int(self.process.stdout.readline()), mib * MIB
        self.content = self.bytes()

    def bytes(self) -> bytes:
        """Returns its memory."""
        with Path(f"/proc/{self.pid}/mem").open("rb", buffering=0) as memory:
            memory.seek(self._begin)
            return memory.read(self._size)
