"""The runtime directory: one daemon's lock, and the knobs it found, kept for whoever has to put them back.

The directory may be read by everybody, for the status in it; what is locked or put back from may not. It must be ours:
whoever can write to it could have any value written to the kernel.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ksmtuned_py.errors import AlreadyRunning, Garbage, NoRuntimeDirectory
from ksmtuned_py.model import Knobs

DIRECTORY_MODE, PRIVATE_MODE = 0o755, 0o600
OTHERS_WRITE = 0o022


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose knobs."""

    backend: str
    root: str
    boot_id: str

    def __str__(self) -> str:
        return f"{self.backend} below {self.root}, boot {self.boot_id or 'unknown'}"


@dataclass(frozen=True, slots=True)
class Originals:
    """What was found, and whose it is."""

    origin: Origin
    knobs: Knobs


_ORIGINALS = TypeAdapter(Originals)


class Runtime:
    """One runtime directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.status_path = directory / "status.json"
        self.originals_path = directory / "originals.json"
        self.switched_path = directory / "switched.json"

    def make(self) -> None:
        """Create the directory; NoRuntimeDirectory when that is not possible, or it is not ours alone."""
        with self._in_use():
            self.directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            seen = self.directory.stat()
        if seen.st_uid not in (0, os.geteuid()) or seen.st_mode & OTHERS_WRITE:
            raise NoRuntimeDirectory(str(self.directory), f"others may write to it (mode {seen.st_mode & 0o7777:o})")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the one lock; AlreadyRunning names who has it. It ends with the process, however that ends."""
        self.make()
        path = self.directory / "lock"
        with self._in_use():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_MODE)
        with os.fdopen(descriptor, "r+") as lock:
            os.fchmod(descriptor, PRIVATE_MODE)  # whoever may open it may lock it
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(str(path), _holder(lock.read())) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                yield
            finally:
                lock.truncate(0)

    def lock_until(self, undo: ExitStack, *, needed: bool) -> bool:
        """Hold it until `undo` is done; whether we do, where it is not needed."""
        try:
            undo.enter_context(self.locked())
        except (AlreadyRunning, NoRuntimeDirectory):
            if needed:
                raise
            return False
        return True

    def save_originals(self, origin: Origin, found: Knobs) -> None:
        """Remember what was found, before the first write. The first time counts: what is saved is not changed."""
        saved = self.originals()
        knobs = Knobs(**{**dict(found.items()), **dict(saved.knobs.items() if saved else ())})  # type: ignore[arg-type] # as the file has them
        with self._in_use():
            replace_file(self.originals_path, _ORIGINALS.dump_json(Originals(origin, knobs), exclude_none=True))

    def originals(self) -> Originals | None:
        """What was found; None when nothing is owed. Garbage, or NoRuntimeDirectory when it cannot be read."""
        with self._in_use():
            try:
                text = self.originals_path.read_bytes()
            except FileNotFoundError:
                return None
        try:
            return _ORIGINALS.validate_json(text)
        except ValidationError as error:
            raise Garbage(
                str(self.originals_path), str(error.errors()[0]["msg"]), "the knobs a daemon saved"
            ) from error

    def forget_originals(self) -> None:
        """The debt is paid, and what a killed daemon last said is of no use any more."""
        with self._in_use():
            self.originals_path.unlink(missing_ok=True)
            self.status_path.unlink(missing_ok=True)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NoRuntimeDirectory(str(self.directory), error.strerror or str(error)) from error


def _holder(text: str) -> str:
    """Who has the lock: the process that wrote its PID there, if it still runs."""
    with suppress(ValueError, ProcessLookupError, OverflowError):
        os.kill(int(text), 0)
        return f"PID {int(text)}"
    return "PID unknown"


def replace_file(path: Path, text: bytes) -> None:
    """Write a whole file that only we may read, or nothing: readers see the old or the new text, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, PRIVATE_MODE)
        file.write(text)
    temporary.replace(path)
