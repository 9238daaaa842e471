"""Keeps what the doctor found last, and has it look anew, in a child of its own, when somebody asks and that is old."""

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from ksmtuned_py.door.descriptors import begin
from ksmtuned_py.units import MIB

PATIENCE_SECONDS = 60.0
"""The time that the doctor has. It waits 30 s for each guest that does not answer."""
LEAST_APART_SECONDS, APART_TIMES = 600.0, 50
"""The time between two looks: so long, and so many times what the last one took."""
MOST_MEMORY_BYTES = 160 * MIB
"""The most memory of the child. The unit has 256 MiB, and 500 guests with 225 mappings each take 90."""
MOST_BYTES = 4 * MIB
GOOD_CODES = (0, 1)
"""Exit codes of the doctor: it found nothing that is wrong, or something."""
NEVER_SECONDS = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class SameFinding:
    """One finding, with all the guests that have it."""

    code: str
    severity: str
    """A "finding" has evidence that something is wrong. A "note" is a suspicion, or nothing wrong."""
    sentence: str
    evidence: str
    """The observation in the first guest, or on the host."""
    mend: str
    guests: tuple[str, ...]
    """The names of the guests; () for the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastLook:
    """What is known of the doctor's findings."""

    looked_unix_seconds: float | None = None
    """When these findings were made; None = never yet."""
    looking: bool = False
    """It looks right now."""
    problem: str | None = None
    """Why the last look was in vain; None when it was not."""
    findings: tuple[SameFinding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Printed:
    """One finding as `ksmtuned-py doctor --json` prints it."""

    code: str
    severity: str
    guest: str
    sentence: str
    evidence: str
    mend: str


class Findings:
    """The doctor's findings, for the page. A child looks, so whatever befalls it, no tick and no answer waits."""

    def __init__(self, words: Sequence[str] = (), patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Begin nothing yet. `words` are the verb with its options; without them there is nothing to look at."""
        self._words = tuple(words)
        self._patience_seconds = patience_seconds
        self._found = LastLook() if words else LastLook(problem="this is a model: there is no host to look at")
        self._not_before_seconds = 0.0 if words else NEVER_SECONDS
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    def told(self) -> LastLook:
        """What is known now, at once. Where it is old, a look begins."""
        with self._lock:
            looking = self._thread is not None and self._thread.is_alive()
            if not looking and time.monotonic() >= self._not_before_seconds:
                self._thread = threading.Thread(target=self._look, name="doctor", daemon=True)
                looking = begin(self._thread)
            return replace(self._found, looking=looking)

    def close(self) -> None:
        """End a look wherever it is, and begin no other."""
        with self._lock:
            self._not_before_seconds = NEVER_SECONDS
            if self._child is not None:
                self._child.kill()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(1)

    def _look(self) -> None:
        began, looked = time.monotonic(), time.time()
        try:
            found = LastLook(looked_unix_seconds=looked, findings=self._ask())
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            found = replace(self._found, problem=_why_not(error))
        with self._lock:
            self._found = found
            ended = time.monotonic()
            apart = max(LEAST_APART_SECONDS, APART_TIMES * (ended - began))
            self._not_before_seconds = max(self._not_before_seconds, ended + apart)

    def _ask(self) -> tuple[SameFinding, ...]:
        """What a child prints; raises OSError, ValueError for what are no findings, or SubprocessError."""
        with os.fdopen(os.memfd_create("doctor"), "rb") as printed:
            child = self._begun(printed.fileno())
            try:
                code = child.wait(self._patience_seconds)
            finally:
                child.kill()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(1)
            if code not in GOOD_CODES or os.fstat(printed.fileno()).st_size > MOST_BYTES:
                raise ValueError(f"it ended with {code}")
            printed.seek(0)
            return _joined(TypeAdapter(list[_Printed]).validate_json(printed.read()))

    def _begun(self, printed: int) -> "subprocess.Popen[bytes]":
        """Another child, unless the last one does not even end when it is killed; raises SubprocessError then."""
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            raise subprocess.TimeoutExpired(self._words, self._patience_seconds)
        child = _child(self._words, printed)  # without the lock: to begin one may take long where memory is short
        with self._lock:
            self._child = child
            if self._not_before_seconds == NEVER_SECONDS:
                child.kill()  # the daemon has ended meanwhile
        return child


def _child(words: Sequence[str], printed: int) -> "subprocess.Popen[bytes]":
    child = subprocess.Popen(  # -P: no module of the current directory, which may be anybody's
        [sys.executable, "-P", "-m", "ksmtuned_py", *words],
        stdin=subprocess.DEVNULL,
        stdout=printed,
        stderr=subprocess.DEVNULL,
    )
    with suppress(OSError):  # it has ended already
        resource.prlimit(child.pid, resource.RLIMIT_DATA, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    return child


def _joined(findings: Iterable[_Printed]) -> tuple[SameFinding, ...]:
    """Findings that say the same, in one for all their guests: those that are wrong first."""
    found: dict[tuple[str, ...], list[_Printed]] = {}
    for each in findings:
        whose = "guest" if each.guest else each.evidence
        found.setdefault((whose, each.code, each.severity, each.sentence, each.mend), []).append(each)
    made = [
        SameFinding(
            code=same[0].code,
            severity=same[0].severity,
            sentence=same[0].sentence,
            evidence=same[0].evidence,
            mend=same[0].mend,
            guests=tuple(each.guest for each in same if each.guest),
        )
        for same in found.values()
    ]
    return tuple(sorted(made, key=lambda one: one.severity != "finding"))


def _why_not(error: Exception) -> str:
    why = "could not look"
    if isinstance(error, subprocess.TimeoutExpired):
        why = f"took longer than {error.timeout:.0f} s"
    return f"the doctor {why}; try `ksmtuned-py doctor`"
