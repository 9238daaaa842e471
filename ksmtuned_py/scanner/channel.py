"""Carries JSON messages of any size between the control loop and the scan worker, over a socket pair.

Neither side waits until the other one reads. What does not fit into the socket is sent later.
"""

import contextlib
import json
import os
import select
import socket
import struct
import time
from typing import Any

_LENGTH = struct.Struct("=Q")
_AT_ONCE = 1 << 20
_WHOLE_SECONDS = 0.2
"""How long the rest of a message is waited for once its beginning is there."""
Message = dict[str, Any]


class Closed(Exception):
    """The other side has ended."""


class Channel:
    """One end of the socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setblocking(False)
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)
        self._out = bytearray()
        self._in = bytearray()

    @property
    def is_full(self) -> bool:
        """Whether something that was sent still waits for the other side to read."""
        return bool(self._out)

    def send(self, message: Message) -> None:
        """Sends a message now, or as soon as the other side has read enough; raises Closed."""
        data = json.dumps(message).encode()
        self._out += _LENGTH.pack(len(data)) + data
        self._flush()

    def receive(self, timeout_seconds: float = 0) -> list[Message]:
        """Returns all messages that are there; waits at most this long for the first one. Raises Closed."""
        deadline = time.monotonic() + timeout_seconds
        whole = max(deadline, time.monotonic() + _WHOLE_SECONDS)
        while not (messages := self._complete()):
            wait_seconds = max(0.0, (whole if self._in else deadline) - time.monotonic())
            events = self._poll.poll(wait_seconds * 1000)
            if not events:
                break
            if events[0][1] & select.POLLOUT:
                self._flush()
            if events[0][1] & ~select.POLLOUT:
                self._take()
        return messages

    def close(self) -> None:
        """Closes this end; the other side sees Closed."""
        with contextlib.suppress(OSError):
            self._end.close()

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self._end.send(self._out[:_AT_ONCE], socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            pass
        except OSError:
            raise Closed from None
        self._poll.modify(self._end, select.POLLIN | (select.POLLOUT if self._out else 0))

    def _take(self) -> None:
        try:
            data = self._end.recv(_AT_ONCE)
        except BlockingIOError:
            return
        except OSError:
            raise Closed from None
        if not data:
            raise Closed
        self._in += data

    def _complete(self) -> list[Message]:
        messages: list[Message] = []
        begin = 0
        while len(self._in) - begin >= _LENGTH.size:
            end = begin + _LENGTH.size + _LENGTH.unpack_from(self._in, begin)[0]
            if end > len(self._in):
                break
            messages.append(json.loads(self._in[begin + _LENGTH.size : end]))
            begin = end
        del self._in[:begin]
        return messages


def pair() -> tuple[socket.socket, socket.socket]:
    """Returns two connected ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)


def inherited(descriptor: int) -> Channel:
    """Returns the end that this process has inherited, and keeps its own children from inheriting it."""
    os.set_inheritable(descriptor, False)
    return Channel(socket.socket(fileno=descriptor))
