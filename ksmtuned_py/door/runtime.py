"""Keeps the runtime directory, with a daemon's lock and the knobs it found, for whoever has to put them back.

Everybody may read the directory, for the status in it, but not the lock and the saved knobs. The directory and the way
to it must be ours. Whoever can write there could have any value written to the kernel.
"""

import errno
import fcntl
import os
import pwd
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError

from ksmtuned_py.door import Door
from ksmtuned_py.door.boot import boot_id
from ksmtuned_py.door.text import printable
from ksmtuned_py.errors import AlreadyRunning, Garbage, NoRuntimeDirectory
from ksmtuned_py.model import Clock, Knobs, Pause

DIRECTORY_MODE, PRIVATE_MODE, PUBLIC_MODE = 0o755, 0o600, 0o644
OTHERS_WRITE = 0o022
MOST_BYTES = 1 << 20
"""The most that is read of a file of ours. It is enough for thousands of guests that were switched off."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose knobs were saved: of which backend, below which root, and since which boot."""

    backend: str
    root: str
    boot_id: str

    def __str__(self) -> str:
        return f"{self.backend} below {self.root}, boot {self.boot_id or 'unknown'}"


@dataclass(frozen=True, slots=True)
class Originals:
    """The knobs that were found, and whose they are."""

    origin: Origin
    knobs: Knobs


_ORIGINALS = TypeAdapter(Originals)
_PAUSE = TypeAdapter(Pause)
PAUSE_MAX_SECONDS = 7 * 86_400.0
"""The longest pause that anybody can ask for, so one that lasts longer is of another time."""


class Runtime:
    """Reads and writes the files of one runtime directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.status_path = directory / "status.json"
        self.originals_path = directory / "originals.json"
        self.switched_path = directory / "switched.json"
        self.pause_path = directory / "pause.json"
        self.answer_path = directory / "reload.json"
        self.lock_path = directory / "lock"
        self._saved: Originals | None = None
        """The knobs that this process saved.

        They count here, whatever becomes of the file, which is for later processes.
        """

    def make(self) -> None:
        """Create the directory; raises NoRuntimeDirectory when that fails, or when it is not ours alone."""
        with self._in_use():
            for place in (*reversed(self.directory.parents), self.directory):
                _make_directory(place)
            seen = self.directory.stat()
            if not stat.S_ISDIR(seen.st_mode):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            if not is_ours(seen):
                belongs = f"it belongs to {_user(seen.st_uid)}"
                reason = f"others may write to it (mode {seen.st_mode & 0o7777:o})"
                raise NoRuntimeDirectory(str(self.directory), belongs if is_foreign(seen) else reason)
            if foreign := _foreign_above(self.directory):
                raise NoRuntimeDirectory(str(self.directory), f"others may put another in its place, in {foreign}")

    def act_as_owner(self) -> None:
        """Become the user to whom the directory belongs, for good, if we are root.

        So nothing that this user has put there makes root do more than the user may.
        """
        with self._in_use():
            try:
                owner = self.directory.stat().st_uid
            except FileNotFoundError:  # whoever makes it owns it
                return
            if os.geteuid() != 0 or owner == 0:
                return
            try:
                account = pwd.getpwuid(owner)
            except KeyError:
                raise NoRuntimeDirectory(str(self.directory), f"it belongs to {_user(owner)}") from None
            os.initgroups(account.pw_name, account.pw_gid)
            os.setresgid(*[account.pw_gid] * 3)
            os.setresuid(*[owner] * 3)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Have the one lock for a with block; raises AlreadyRunning, which names who has it.

        The kernel releases it when the process ends, in whatever way.
        """
        self.make()
        with self._in_use():
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            lock = os.open(self.lock_path, flags, PRIVATE_MODE)
        try:
            if not stat.S_ISREG(os.fstat(lock).st_mode):
                raise NoRuntimeDirectory(str(self.directory), "lock is no regular file")
            os.fchmod(lock, PRIVATE_MODE)  # whoever may open it may lock it
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(str(self.lock_path), _holder(os.pread(lock, 64, 0))) from None
            os.ftruncate(lock, 0)
            with suppress(OSError):  # only messages and a reload need it, and knobs are put back on a full disk, too
                os.pwrite(lock, f"{os.getpid()} {time.monotonic():.2f}".encode(), 0)
            try:
                yield
            finally:
                os.ftruncate(lock, 0)
        finally:
            os.close(lock)

    def holder(self) -> tuple[int, float] | None:
        """The PID in the lock, and when it was written, by the clock that nobody sets; None for none.

        Raises NoRuntimeDirectory for whoever may not know.
        """
        with self._in_use():
            try:
                pid, _, monotonic_seconds = read_file(self.lock_path).decode().partition(" ")
                return int(pid), float(monotonic_seconds)
            except (FileNotFoundError, ValueError):
                return None

    def save_originals(self, origin: Origin, found: Knobs) -> None:
        """Save the knobs that were found, before the first write. A knob that is already saved is not changed."""
        saved = self.originals()
        knobs = Knobs.of({**dict(found.items()), **dict(saved.knobs.items() if saved else ())})
        with self._in_use():
            replace_file(self.originals_path, _ORIGINALS.dump_json(Originals(origin, knobs), exclude_none=True))
        self._saved = Originals(origin, knobs)

    def originals(self) -> Originals | None:
        """The saved knobs; None when nothing is owed.

        Raises Garbage, or NoRuntimeDirectory when the file is unreadable.
        """
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
        """Remove the saved knobs, which are put back, and the status that a killed daemon left."""
        self._saved = None
        with self._in_use():
            self.originals_path.unlink(missing_ok=True)
            self.status_path.unlink(missing_ok=True)

    def save_pause(self, pause: Pause) -> None:
        """Save a pause, in which no daemon scans. A daemon of another user may read it, too."""
        self.make()
        with self._in_use():
            replace_file(self.pause_path, _PAUSE.dump_json(pause), PUBLIC_MODE, f".{os.getpid()}")

    def pause(self, now: Clock) -> Pause | None:
        """The pause that is in force at that time; None for none. Raises Garbage or NoRuntimeDirectory."""
        with self._in_use():
            try:
                text = read_file(self.pause_path, self.directory.stat().st_uid)
            except FileNotFoundError:
                return None
        try:
            found = _PAUSE.validate_json(text)
        except ValidationError as error:
            raise Garbage(str(self.pause_path), str(error.errors()[0]["msg"]), "a pause") from error
        readable = replace(found, reason=printable(found.reason))  # another user's daemon may have its owner's words
        is_of_now = found.boot_id in ("", boot_id(Door())) and 0 < found.left_seconds(now) <= PAUSE_MAX_SECONDS
        return readable if is_of_now else None

    def forget_pause(self) -> None:
        """Remove the pause."""
        with self._in_use():
            self.pause_path.unlink(missing_ok=True)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise NoRuntimeDirectory(str(self.directory), error.strerror or str(error)) from error


def _make_directory(place: Path) -> None:
    """Make a directory where there is none. Its mode does not go by the umask, which may keep readers out."""
    with suppress(FileExistsError):
        place.mkdir(mode=0o700)
        place.chmod(DIRECTORY_MODE)


def is_ours(seen: os.stat_result, *owners: int) -> bool:
    """Whether a file is root's, ours, or of these owners, and nobody else may write to it."""
    return not is_foreign(seen, *owners) and not seen.st_mode & OTHERS_WRITE


def is_foreign(seen: os.stat_result, *owners: int) -> bool:
    """Whether a file is neither root's nor ours, nor of these owners."""
    return seen.st_uid not in (0, os.geteuid(), *owners)


def _user(uid: int) -> str:
    """The words for a user in an error message."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}, who has no account here"


def _foreign_above(directory: Path) -> Path | None:
    """A directory or link above root's runtime directory through which others could replace it; None for none."""
    ways = (directory.absolute(), directory.resolve()) if os.geteuid() == 0 else ()
    for place in (each for way in ways for each in (way, *way.parents)):
        seen = place.lstat()
        is_kept = stat.S_ISLNK(seen.st_mode) or seen.st_mode & stat.S_ISVTX  # only an owner replaces it
        if not is_ours(seen) and not (is_kept and seen.st_uid in (0, os.geteuid())):
            return place
    return None


def _holder(text: bytes) -> str:
    """The holder of the lock for an error message. It is known if the process that wrote its PID still runs."""
    with suppress(ValueError, ProcessLookupError, OverflowError):
        pid = int(text.partition(b" ")[0])
        os.kill(pid, 0)
        return f"PID {pid}"
    return "PID unknown"


def read_file(path: Path, *owners: int) -> bytes:
    """Read a file of ours, or of these owners; raises OSError, also when it is no regular file, or too long."""
    with _opened(path) as file:
        seen = os.fstat(file.fileno())
        if not (is_ours(seen, *owners) and stat.S_ISREG(seen.st_mode) and seen.st_size <= MOST_BYTES):
            raise PermissionError(errno.EPERM, f"{path.name} is not a file of ours")
        return file.read(MOST_BYTES)


def read_anybodys(path: Path, most_bytes: int) -> bytes:
    """Read a file of whomever; raises OSError, also when it is no regular file, or too long."""
    with _opened(path) as file:
        seen = os.fstat(file.fileno())
        if not (stat.S_ISREG(seen.st_mode) and seen.st_size <= most_bytes):
            raise OSError(errno.EINVAL, "no regular file, or too long")
        return file.read(most_bytes)


def _opened(path: Path) -> BinaryIO:
    """Open a file without following a link in its place, and without waiting for a pipe's other end."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def replace_file(path: Path, text: bytes, mode: int = PRIVATE_MODE, writer: str = "") -> None:
    """Write a whole file or nothing, so that readers never see a part. Writers at one time each need a name."""
    new = path.with_name(f"{path.name}{writer}.new")
    new.unlink(missing_ok=True)  # left by a process that was killed in here
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
        new.replace(path)
    except OSError:  # on a full disk we must not fill up what is left
        new.unlink(missing_ok=True)
        raise
