"""The runtime directory: one daemon's lock, and the knobs it found, kept for whoever has to put them back.

The directory may be read by everybody, for the status in it; what is locked or put back from may not. It must be ours,
and the way to it: whoever can write to it could have any value written to the kernel.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ksmtuned_py.errors import AlreadyRunning, Garbage, NoRuntimeDirectory
from ksmtuned_py.model import Knobs, Pause

DIRECTORY_MODE, PRIVATE_MODE, PUBLIC_MODE = 0o755, 0o600, 0o644
OTHERS_WRITE = 0o022
MOST_BYTES = 1 << 20
"""Of a file of ours: thousands of guests that were switched off."""


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
_PAUSE = TypeAdapter(Pause)
PAUSE_MAX_SECONDS = 8 * 86_400.0
"""A week, which is the longest, and a day for a clock that was put back: one put back by a year ends the pause."""


class Runtime:
    """One runtime directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.status_path = directory / "status.json"
        self.originals_path = directory / "originals.json"
        self.switched_path = directory / "switched.json"
        self.pause_path = directory / "pause.json"
        self._saved: Originals | None = None
        """By this process: whatever becomes of the file, it is for those that come after."""

    def make(self) -> None:
        """Create the directory; NoRuntimeDirectory when that is not possible, or it is not ours alone."""
        with self._in_use():
            for above in reversed(self.directory.parents):  # mkdir's parents=True would go by the umask
                if not above.exists():
                    above.mkdir(mode=DIRECTORY_MODE)
            self.directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            seen = self.directory.stat()
            if not _is_ours(seen):
                reason = f"others may write to it (mode {seen.st_mode & 0o7777:o})"
                raise NoRuntimeDirectory(str(self.directory), reason)
            if foreign := _foreign_above(self.directory):
                raise NoRuntimeDirectory(str(self.directory), f"others may put another in its place, in {foreign}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the one lock; AlreadyRunning names who has it. It ends with the process, however that ends."""
        self.make()
        path = self.directory / "lock"
        with self._in_use():
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_MODE)
        try:
            os.fchmod(lock, PRIVATE_MODE)  # whoever may open it may lock it
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(str(path), _holder(os.pread(lock, 32, 0))) from None
            os.ftruncate(lock, 0)
            with suppress(OSError):  # it is for a sentence: whoever has to put knobs back does so on a full disk, too
                os.pwrite(lock, str(os.getpid()).encode(), 0)
            try:
                yield
            finally:
                os.ftruncate(lock, 0)
        finally:
            os.close(lock)

    def save_originals(self, origin: Origin, found: Knobs) -> None:
        """Remember what was found, before the first write. The first time counts: what is saved is not changed."""
        saved = self.originals()
        knobs = Knobs(**{**dict(found.items()), **dict(saved.knobs.items() if saved else ())})  # type: ignore[arg-type] # as the file has them
        with self._in_use():
            replace_file(self.originals_path, _ORIGINALS.dump_json(Originals(origin, knobs), exclude_none=True))
        self._saved = Originals(origin, knobs)

    def originals(self) -> Originals | None:
        """What was found; None when nothing is owed. Garbage, or NoRuntimeDirectory when it cannot be read."""
        if self._saved is not None:
            return self._saved
        with self._in_use():
            try:
                text = read_file(self.originals_path)
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
        self._saved = None
        with self._in_use():
            self.originals_path.unlink(missing_ok=True)
            self.status_path.unlink(missing_ok=True)

    def save_pause(self, pause: Pause) -> None:
        """From now on no daemon scans, until then. A daemon of another user may read it, too."""
        self.make()
        with self._in_use():
            replace_file(self.pause_path, _PAUSE.dump_json(pause), PUBLIC_MODE)

    def pause(self, now_unix_seconds: float) -> Pause | None:
        """The pause that is in force then; raises Garbage, or NoRuntimeDirectory when it cannot be read."""
        with self._in_use():
            try:
                text = read_file(self.pause_path)
            except FileNotFoundError:
                return None
        try:
            found = _PAUSE.validate_json(text)
        except ValidationError as error:
            raise Garbage(str(self.pause_path), str(error.errors()[0]["msg"]), "a pause") from error
        left_seconds = found.until_unix_seconds - now_unix_seconds
        return found if 0 < left_seconds <= PAUSE_MAX_SECONDS else None

    def forget_pause(self) -> None:
        """The pause is over."""
        with self._in_use():
            self.pause_path.unlink(missing_ok=True)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NoRuntimeDirectory(str(self.directory), error.strerror or str(error)) from error


def _is_ours(seen: os.stat_result) -> bool:
    return seen.st_uid in (0, os.geteuid()) and not seen.st_mode & OTHERS_WRITE


def _foreign_above(directory: Path) -> Path | None:
    """A directory, or a link, on the way to root's, by which somebody else could have another in its place."""
    ways = (directory.absolute(), directory.resolve()) if os.geteuid() == 0 else ()
    for place in (each for way in ways for each in (way, *way.parents)):
        seen = place.lstat()
        is_kept = stat.S_ISLNK(seen.st_mode) or seen.st_mode & stat.S_ISVTX  # by its owner, or its entries by theirs
        if not _is_ours(seen) and not (is_kept and seen.st_uid in (0, os.geteuid())):
            return place
    return None


def _holder(text: bytes) -> str:
    """Who has the lock: the process that wrote its PID there, if it still runs."""
    with suppress(ValueError, ProcessLookupError, OverflowError):
        os.kill(int(text), 0)
        return f"PID {int(text)}"
    return "PID unknown"


def read_file(path: Path) -> bytes:
    """A file of ours; raises OSError, also when it is somebody else's, no file, or longer than any of ours."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        seen = os.fstat(descriptor)
        if not (_is_ours(seen) and stat.S_ISREG(seen.st_mode) and seen.st_size <= MOST_BYTES):
            raise PermissionError(errno.EPERM, f"{path.name} is not a file of ours")
        return file.read(MOST_BYTES)


def replace_file(path: Path, text: bytes, mode: int = PRIVATE_MODE) -> None:
    """Write a whole file, or nothing: readers see the old or the new text, never a part. One writer at a time."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)  # what one that was killed in here has left
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
        new.replace(path)
    except OSError:  # a full disk: nor is what is left of it filled by us
        new.unlink(missing_ok=True)
        raise
