"""The runtime directory: one daemon's lock, and the knobs it found, kept for whoever has to put them back."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ksmtuned_py.errors import AlreadyRunning, Garbage, NoRuntimeDirectory
from ksmtuned_py.model import Knobs

_KNOBS = TypeAdapter(Knobs)


class Runtime:
    """One runtime directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.status_path = directory / "status.json"
        self.originals_path = directory / "originals.json"

    def make(self) -> None:
        """Create the directory; NoRuntimeDirectory when that is not possible."""
        with self._in_use():
            self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the one lock; AlreadyRunning names who has it. It ends with the process, however that ends."""
        self.make()
        path = self.directory / "lock"
        with self._in_use():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(str(path), f"PID {lock.read().strip() or 'unknown'}") from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def save_originals(self, knobs: Knobs) -> None:
        """Remember what was found, before the first write. The first time counts: a second call changes nothing."""
        with self._in_use():
            if not self.originals_path.exists():
                replace_file(self.originals_path, json.dumps(dict(knobs.items())))

    def originals(self) -> Knobs | None:
        """What was found; None when nothing is owed."""
        try:
            return _KNOBS.validate_json(self.originals_path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise Garbage(
                str(self.originals_path), str(error.errors()[0]["msg"]), "the knobs a daemon saved"
            ) from error

    def forget_originals(self) -> None:
        """The debt is paid, and what a killed daemon last said is of no use any more."""
        self.originals_path.unlink(missing_ok=True)
        self.status_path.unlink(missing_ok=True)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NoRuntimeDirectory(str(self.directory), error.strerror or str(error)) from error


def replace_file(path: Path, text: str) -> None:
    """Write a whole file or nothing: readers see the old or the new text, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
