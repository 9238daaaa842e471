"""One worker process as its parent sees it: what it was asked, what it has said, and how it ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields

from ksmtuned_py.config import Scan
from ksmtuned_py.model import GuestKey
from ksmtuned_py.scanner.channel import Channel, Closed, Message, pair
from ksmtuned_py.scanner.mark import NOBODY, Mark, new_mark
from ksmtuned_py.scanner.settings import ScanSettings
from ksmtuned_py.scanner.target import DEFAULT_KNOBS, Target
from ksmtuned_py.units import human_seconds

_CLOSE_SECONDS = 5.0
_END_SECONDS = 1.0
"""How long a worker may take to end after its channel is closed; the interpreter takes less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPatience:
    """How long a worker may leave a question open. No step of its work takes a second."""

    told_seconds: float = 5.0
    """After this time the silence is told as a problem."""
    ended_seconds: float = 60.0
    """After this time the worker is ended, so that another one can begin."""
    given_up_seconds: float = 10.0
    """After so much longer it is given up: reading a file whose server does not answer keeps it from ending."""


@dataclass(slots=True)
class Wanted:
    """What the worker is asked to do."""

    knobs: dict[str, int] = field(default_factory=lambda: dict(DEFAULT_KNOBS))
    targets: list[Target] = field(default_factory=list)
    version: int = 1
    """Version of the targets: each change makes a new one."""
    whole_above_bytes: int | None = None
    """Huge pages may be given back while so much memory stays available; None = not now."""


class WorkerLink:
    """A worker that has just been started."""

    def __init__(self, root: str, settings: Scan, patience: WorkerPatience) -> None:
        ours, theirs = pair()
        mark = new_mark()
        try:
            self._mark = Mark(mark)
            self._process = _spawn(theirs, mark, root, settings)
        finally:
            os.close(mark)
        self._channel = Channel(ours)
        self._patience = patience
        self._begun = time.monotonic()
        self._heard = self._begun
        self._asked = 0
        self._open_since: float | None = None
        self._sent_version = 0
        self._closed_at: float | None = None
        self._ended_for: str | None = None
        self._ended_at = 0.0
        self.hung_at = NOBODY
        """The guest that the worker was at when it was ended for its silence, or ended with an error, or was kept."""
        self.status: Message = {}
        """The worker's latest status; empty until it has told one."""
        self.guests: dict[GuestKey, Message] = {}

    @property
    def pid(self) -> int:
        """The worker's process ID."""
        return self._process.pid

    @property
    def lived_seconds(self) -> float:
        """Seconds since the worker was started."""
        return time.monotonic() - self._begun

    @property
    def status_seconds(self) -> float:
        """Age of the latest status, in seconds."""
        return time.monotonic() - self._heard

    @property
    def silent_seconds(self) -> float:
        """Seconds for which a question is open and nothing was said; 0 when no question is open."""
        return 0.0 if self._open_since is None else time.monotonic() - self._open_since

    def ask(self, wanted: Wanted) -> None:
        """Asks for the worker's status. The wanted work goes with each question until the worker knows it."""
        if self._closed_at is not None or self._channel.is_full:
            return
        message: Message = {
            "ask": self._asked + 1,
            "knobs": wanted.knobs,
            "whole_above_bytes": wanted.whole_above_bytes,
        }
        if wanted.version not in (self.status.get("version"), self._sent_version):
            message |= {"version": wanted.version, "targets": [asdict(target) for target in wanted.targets]}
            self._sent_version = wanted.version
        self._asked += 1
        self._open_since = self._open_since or time.monotonic()
        try:
            self._channel.send(message)
        except Closed:
            self._close()

    def hear(self, timeout_seconds: float = 0) -> None:
        """Takes in what the worker says, waiting at most so long; ends a worker that says nothing for too long."""
        if self._closed_at is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_seconds)
        else:
            try:
                for message in self._channel.receive(timeout_seconds):
                    self._take(message)
            except Closed:
                self._close()
        if self._ended_for:
            return
        if self.silent_seconds >= self._patience.ended_seconds:
            self.hung_at = self._mark.get()
            where = "" if self.hung_at == NOBODY else f" at process {self.hung_at.pid}"
            self._end(f"it had said nothing for {human_seconds(self.silent_seconds)}{where}, and was ended")
        elif self._closed_at is not None and time.monotonic() - self._closed_at > _END_SECONDS:
            self._end("it had stopped to listen, and was ended")

    def death(self) -> str | None:
        """Returns how the worker ended; None while it runs. Notes the guest at which it failed by itself.

        One that was killed at a guest and does not end is given up.
        """
        code = self._process.poll()
        if code is None:
            late = time.monotonic() - self._ended_at >= self._patience.given_up_seconds
            given_up = self._ended_for and self.hung_at != NOBODY and late
            return f"{self._ended_for}, but it waits for the kernel" if given_up else None
        if not self._ended_for and (code > 0 or (code == -signal.SIGKILL and self._mark.was_kept())):
            self.hung_at = self._mark.get()
        return self._ended_for if self._ended_for and code == -signal.SIGKILL else _cause(code)

    @property
    def has_ended(self) -> bool:
        """Whether its process has ended. One that was given up does nothing more, and may end much later."""
        return self._process.poll() is not None

    @property
    def problem(self) -> str | None:
        """A sentence that tells what is wrong with the worker; None when nothing is."""
        if self._ended_for:
            return "the scan worker was killed and does not end: it waits for the kernel"
        if self.silent_seconds >= self._patience.told_seconds:
            return f"the scan worker has said nothing for {human_seconds(self.silent_seconds)}"
        return None

    def close(self) -> None:
        """Ends the worker and waits for its end; what it merged stays merged."""
        self._channel.close()
        self._mark.close()
        if self._ended_for and self.death():  # it is given up where it has not ended
            return
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # it waits for the kernel, and ends when that wait is over
                self._process.wait(_CLOSE_SECONDS)

    def _take(self, message: Message) -> None:
        if message["all"]:
            self.guests = {}
        self.guests |= {key_of(guest): guest for guest in message["guests"]}
        self.status, self._heard = message, time.monotonic()
        answered = message["ask"] == self._asked
        self._open_since = None if answered else self._heard
        self._sent_version = 0 if answered else self._sent_version

    def _close(self) -> None:
        """Closes the channel first: how the worker ended is known only after its last message."""
        self._channel.close()
        self._closed_at = time.monotonic()

    def _end(self, reason: str) -> None:
        if self._process.poll() is None:
            self._ended_for, self._ended_at = reason, time.monotonic()
            self._process.kill()


def key_of(guest: Message) -> GuestKey:
    """The guest of which a message tells."""
    return GuestKey(guest["pid"], guest["start_ticks"])


def _cause(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}, and said why on its standard error"
    doubt = "; was it the OOM killer?" if -code == signal.SIGKILL else ""
    return f"it was killed by signal {-code} ({signal.strsignal(-code)}){doubt}"


def for_scanner(settings: Scan) -> ScanSettings:
    """What the scanner has to know of these settings."""
    return ScanSettings(**{each.name: getattr(settings, each.name) for each in fields(ScanSettings)})


def _spawn(end: socket.socket, mark: int, root: str, settings: Scan) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-P", "-m", "ksmtuned_py.scanner.worker"]
    with end:
        return subprocess.Popen(
            [*program, str(end.fileno()), str(mark), root, json.dumps(asdict(for_scanner(settings)))],
            pass_fds=[end.fileno(), mark],
            stdin=subprocess.DEVNULL,
            # Otherwise numpy's linear algebra would begin a thread for each processor, without any work for it.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
