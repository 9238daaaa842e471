"""QEMU's monitor protocol (QMP) over the UNIX socket that its command line names: just enough to suspend a guest.

QEMU serves one client of such a socket at a time; others wait without an answer. Of the libraries, qemu.qmp would do,
but it brings asyncio, and whoever resumes a guest has to start fast and to be small.
"""

import itertools
import json
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ksmtuned_py.errors import FAILED, KsmtunedError

_ANSWER_SECONDS = 1.0
"""For the greeting, and for questions before anything is changed; QEMU answers in 0.2 ms."""
_BUFFER_BYTES = 1 << 16
_CREDENTIALS = struct.Struct("=iII")
_BUSY = "its monitor does not answer: somebody else is connected to it"
_MIGRATION_OVER = (None, "none", "completed", "failed", "cancelled")


@dataclass(eq=False)
class MonitorRefused(KsmtunedError):
    """A guest's monitor did not do what was asked."""

    reason: str
    exit_code = FAILED
    template = "{reason}"


def parse_monitors(words: Sequence[str]) -> list[str]:
    """The paths of the QMP sockets on which a QEMU with this command line listens, in its order."""
    sockets = {}
    found = []
    for option, value in itertools.pairwise(words):
        match option.lstrip("-") if option.startswith("-") else "":
            case "qmp" | "qmp-pretty":
                kind, _, rest = value.partition(":")
                found.append(_listening(_parts(f"socket,path={rest}")) if kind == "unix" else "")
            case "chardev":
                parts = _parts(value, "backend")
                sockets[parts.get("id", "")] = _listening(parts)
            case "mon":
                parts = _parts(value, "chardev")
                found.append(parts.get("chardev", "") if parts.get("mode") == "control" else "")
    return [path for path in (sockets.get(one, one) for one in found) if "/" in path]


def _listening(parts: dict[str, str]) -> str:
    """The path where a socket's options say that QEMU is the server; '' otherwise."""
    server = parts.get("server") in ("on", "") and parts.get("backend") == "socket"
    return parts.get("path", "") if server else ""


def _parts(value: str, first: str = "backend") -> dict[str, str]:
    """QEMU's a=b,c=d,e (e is short for e=on); the first name may be left out, a comma in a value is doubled."""
    words = [word.replace("\0", ",") for word in value.replace(",,", "\0").split(",")]
    head = {} if "=" in words[0] else {first: words.pop(0)}
    return head | {name: rest for name, _, rest in (word.partition("=") for word in words)}


class Monitor:
    """A QEMU whose monitor is ours for the moment."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._unread = ""
        self._disturbed = False
        """Somebody else has let it run on, or stopped it, since our stop."""
        if "QMP" not in self._next():
            raise MonitorRefused("what listens on its monitor's socket is no QMP")
        self._ask("qmp_capabilities")

    def obstacle(self) -> str:
        """Why the guest must not be suspended now; ''."""
        status = self._ask("query-status")["status"]
        if status != "running":
            return f"it does not run: its state is {status!r}"
        if self._ask("query-migrate").get("status") not in _MIGRATION_OVER:
            return "it is being migrated"  # its other end would take over that it is suspended, and stay so
        if self._ask("query-block-jobs") or self._ask("query-block-exports"):
            return "its disks are being copied or exported, which goes on while it is suspended"
        return ""

    def stop(self) -> None:
        """Suspends it, which drains its disks and stops vhost; waits for that, for ever if need be."""
        self._connection.settimeout(None)
        self._ask("stop")
        self._disturbed = False

    def undisturbed(self) -> bool:
        """Whether nobody has let it run on since. QEMU tells of that first, and this looks at what it has told."""
        self._connection.setblocking(False)
        try:
            while True:
                self._receive()
        except BlockingIOError:
            while (message := self._parsed()) is not None:
                self._heed(message)
            return not self._disturbed and not self._unread
        finally:
            self._connection.setblocking(True)

    def resume(self) -> None:
        """Lets it run on, if it is still suspended by us, and for no other reason."""
        self._connection.settimeout(None)
        if self._ask("query-status")["status"] == "paused" and not self._disturbed:
            self._ask("cont")

    def _ask(self, command: str) -> Any:
        try:
            self._connection.sendall(json.dumps({"execute": command}).encode())
        except OSError as error:
            raise MonitorRefused(f"its monitor is gone: {error.strerror}") from None
        while True:
            message = self._next()
            if "error" in message:
                raise MonitorRefused(f"QEMU's {command}: {message['error'].get('desc', '')}")
            if "return" in message:
                return message["return"]
            self._heed(message)

    def _heed(self, message: dict[str, Any]) -> None:
        self._disturbed |= message.get("event") in ("RESUME", "STOP")

    def _next(self) -> dict[str, Any]:
        while (message := self._parsed()) is None:
            try:
                self._receive()
            except TimeoutError:
                raise MonitorRefused(_BUSY) from None
        return message

    def _parsed(self) -> dict[str, Any] | None:
        """The next whole message; None when there is none yet."""
        self._unread = self._unread.lstrip()
        try:
            message, end = json.JSONDecoder().raw_decode(self._unread)
        except ValueError:
            return None
        self._unread = self._unread[end:].lstrip()
        return dict(message)

    def _receive(self) -> None:
        try:
            data = self._connection.recv(_BUFFER_BYTES)
        except (BlockingIOError, TimeoutError):
            raise
        except OSError:
            data = b""
        if not data:
            raise MonitorRefused("its monitor is gone")
        self._unread += data.decode("utf-8", "replace")


@contextmanager
def monitor(directory: str, pid: int, words: Sequence[str]) -> Iterator[Monitor]:
    """The first monitor of this QEMU that answers, in a with block; `directory` is its /proc/PID.

    Raises MonitorRefused.
    """
    refused = MonitorRefused("it has no monitor (QMP on a UNIX socket) by which it could be suspended")
    for path in parse_monitors(words):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            try:
                found = _connected(connection, directory, pid, path)
            except MonitorRefused as error:
                refused = error
                continue
            yield found
            return
    raise refused


def _connected(connection: socket.socket, directory: str, pid: int, path: str) -> Monitor:
    try:
        connection.connect(f"{directory}/{'root' if path.startswith('/') else 'cwd'}/{path}")
    except (BlockingIOError, TimeoutError):
        raise MonitorRefused(_BUSY) from None
    except OSError as error:
        raise MonitorRefused(f"its monitor {path} cannot be reached: {error}") from None
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    if _CREDENTIALS.unpack(packed)[0] != pid:
        raise MonitorRefused(f"another process listens on {path}")
    return Monitor(connection)
