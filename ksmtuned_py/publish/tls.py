"""Encrypts the connections of waitress, which knows of no encryption."""

import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from socket import socket
from typing import Any

RECORD_BYTES = 16_384
"""The most that one record of TLS has. Who reads so much at once leaves nothing unseen in OpenSSL's buffer."""
NOT_YET = (ssl.SSLWantReadError, ssl.SSLWantWriteError)

Accepted = tuple[socket, Any]


def accepting(accept: Callable[[], Accepted | None], context: ssl.SSLContext) -> Callable[[], Accepted | None]:
    """Make connections encrypted as they come in. The handshake is done later, by the first reads."""

    def accepted() -> Accepted | None:
        taken = accept()
        if taken is None:
            return None
        plain, where = taken
        try:
            plain.setblocking(False)
            return context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), where
        except (OSError, ValueError):  # it has ended already
            plain.close()
            return None

    return accepted


class Encrypted:
    """A part of a channel of waitress: how it reads and writes.

    Two threads may do so at a time, and OpenSSL must not be asked by two.
    """

    socket: ssl.SSLSocket
    last_activity: float

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._one_at_a_time = threading.Lock()
        super().__init__(*arguments, **keywords)

    def handle_read(self) -> None:
        """Take what has come, and go on with the handshake."""
        try:
            with self._one_at_a_time:
                data = self._come()
        except NOT_YET:
            return
        except OSError:
            data = b""
        if data:
            self.last_activity = time.monotonic()
            self.received(data)  # type: ignore[attr-defined]  # the channel's
        else:
            self.handle_close()  # type: ignore[attr-defined]  # the channel's

    def _come(self) -> bytes:
        """What has come; b"" at the end. Raises NOT_YET, or another OSError."""
        whole = self.socket.recv(RECORD_BYTES)
        with suppress(OSError):  # what it says will be said again
            while len(whole) < RECORD_BYTES and (more := self.socket.recv(RECORD_BYTES)):
                whole += more
        return whole

    def send(self, *arguments: Any, **keywords: Any) -> int:
        """Send what can be sent now, and return how much that was."""
        try:
            with self._one_at_a_time:
                return int(super().send(*arguments, **keywords))  # type: ignore[misc]  # the channel's
        except NOT_YET:
            return 0
