"""A note of each guest that is suspended for us, for whoever comes after a resumer that was killed."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ksmtuned_py.guests.qmp import MonitorRefused

NOTES = Path("/run/ksmtuned-py/suspended")
"""In the memory of this boot; the unit keeps its runtime directory over a restart."""


@dataclass(frozen=True, slots=True)
class Suspendable:
    """A guest, and how it is reached."""

    pid: int
    start_ticks: int
    libvirt_uri: str


@contextmanager
def noted(guest: Suspendable, notes: Path = NOTES) -> Iterator[None]:
    """While the guest is suspended, in a with block; an error in it would leave the note. Raises MonitorRefused.

    The lock on the note says that somebody lives who will resume the guest.
    """
    path = notes / f"{guest.pid}-{guest.start_ticks}"
    try:
        notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        note = _locked(path, os.O_CREAT)
    except OSError as error:
        raise MonitorRefused(f"that it is suspended cannot be noted in {path}: {error.strerror}") from None
    try:
        os.write(note, json.dumps(asdict(guest)).encode())
        yield
        path.unlink()
    finally:
        os.close(note)


def settle(resume: Callable[[Suspendable], bool], notes: Path = NOTES) -> list[str]:
    """Has all guests resumed that a killed resumer may have left suspended; the notes of those that are left."""
    left = []
    for path in sorted(notes.glob("*-*")):
        with suppress(OSError):  # its resumer lives, or has ended well meanwhile
            note = _locked(path)
            try:
                text = os.read(note, 4096)
                if not text or resume(Suspendable(**json.loads(text))):  # without text: killed before it did anything
                    path.unlink()
                else:
                    left.append(path.name)
            finally:
                os.close(note)
    return left


def _locked(path: Path, create: int = 0) -> int:
    """Raises BlockingIOError while somebody else has it, FileNotFoundError when that one took it away."""
    note = os.open(path, os.O_RDWR | os.O_CLOEXEC | create, 0o600)
    try:
        fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(note), path.stat()):
            raise FileNotFoundError
    except OSError:
        os.close(note)
        raise
    return note
