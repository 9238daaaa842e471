"""What the control loop and the scan worker say to each other: JSON messages on a socket pair, one per packet."""

import contextlib
import json
import os
import select
import socket
from typing import Any

MOST_BYTES = 1 << 18
Message = dict[str, Any]


class Closed(Exception):
    """The other side has ended."""


class Channel:
    """One end of the socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, MOST_BYTES)
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def fileno(self) -> int:
        """The descriptor, for those who wait for several."""
        return self._end.fileno()

    def send(self, message: Message) -> bool:
        """False when the other side has not read the last ones yet; raises Closed."""
        try:
            self._end.send(json.dumps(message).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError:
            raise Closed from None
        return True

    def receive(self, timeout_seconds: float = 0) -> list[Message]:
        """All messages that are there, after waiting for the first so long; raises Closed."""
        messages: list[Message] = []
        while self._poll.poll(0 if messages else timeout_seconds * 1000):
            try:
                data = self._end.recv(MOST_BYTES)
            except OSError:
                raise Closed from None
            if not data:
                if messages:
                    break
                raise Closed
            messages.append(json.loads(data))
        return messages

    def close(self) -> None:
        """Lets go; the other side sees Closed."""
        with contextlib.suppress(OSError):
            self._end.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends that keep packets apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def inherited(descriptor: int) -> Channel:
    """The end that was handed down to this process, which no further child shall have."""
    os.set_inheritable(descriptor, False)
    return Channel(socket.socket(fileno=descriptor))
