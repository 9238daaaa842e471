"""Hears at once of every program that starts, from the kernel's process connector. A filter leaves exec events only."""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator

NETLINK_CONNECTOR = 11  # include/uapi/linux/netlink.h
CN_IDX_PROC = CN_VAL_PROC = 1  # include/uapi/linux/connector.h
NLMSG_DONE = 3
SO_ATTACH_FILTER = 26

# include/uapi/linux/cn_proc.h
LISTEN, IGNORE = 1, 2
EVENT_NONE, EVENT_EXEC = 0, 2

# struct nlmsghdr (16 bytes), struct cn_msg (20), then struct proc_event: what, cpu, timestamp_ns, and its own data.
_NETLINK_HEADER = struct.Struct("=IHHII")
_CONNECTOR_HEADER = struct.Struct("=IIIIHH")
_ACKNOWLEDGED_AT = 28
_WHAT_AT = 36
_DATA_AT = 52
_U32 = struct.Struct("=I")
_EXEC = struct.Struct("=II")
"""An exec event's own data: the thread's ID and the process's ID."""


class Arrivals:
    """A descriptor that becomes readable when any process on the host has exec'ed."""

    def __init__(self) -> None:
        """Start listening; raises OSError where the kernel does not let us."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR)
        self._socket.setblocking(False)
        try:
            _attach_filter(self._socket)
            self._socket.bind((0, CN_IDX_PROC))
            self._listen()
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor, for select or poll."""
        return self._socket.fileno()

    def drain(self) -> set[int]:
        """The PIDs that exec'ed since the last call. It never blocks.

        A full socket buffer loses some of them. The next tick finds those guests.
        """
        return {_EXEC.unpack_from(message, _DATA_AT)[1] for message in self._messages() if _what(message) == EVENT_EXEC}

    def close(self) -> None:
        """Stop listening, and tell the kernel so. Before Linux 6.6 it would go on making events for nobody."""
        try:
            self._send(IGNORE)
        finally:
            self._socket.close()

    def _send(self, operation: int) -> None:
        connector = _CONNECTOR_HEADER.pack(CN_IDX_PROC, CN_VAL_PROC, 0, self._mark(), _U32.size, 0)
        size = _NETLINK_HEADER.size + len(connector) + _U32.size
        header = _NETLINK_HEADER.pack(size, NLMSG_DONE, 0, 0, 0)
        self._socket.sendto(header + connector + _U32.pack(operation), (0, 0))

    def _mark(self) -> int:
        """Our address on the netlink bus.

        Every listener gets every answer; the one to us carries this number plus one.
        """
        port: int = self._socket.getsockname()[0]
        return port

    def _listen(self) -> None:
        """Ask for events and check the answer; raises OSError when the kernel refuses.

        The kernel answers before sendto returns. Outside the initial PID namespace it does not answer at all.
        """
        self._send(LISTEN)
        ours = (self._mark() + 1) & 0xFFFFFFFF
        for message in self._messages():
            if _what(message) == EVENT_NONE and _U32.unpack_from(message, _ACKNOWLEDGED_AT)[0] == ours:
                error: int = _U32.unpack_from(message, _DATA_AT)[0]
                if error:
                    raise OSError(error, os.strerror(error))
                return
        raise OSError(errno.EPERM, "the kernel tells only its initial PID namespace of new processes")

    def _messages(self) -> Iterator[bytes]:
        """The queued messages.

        The kernel reports a full buffer once (ENOBUFS), and what is queued then is still good.
        """
        while True:
            try:
                message = self._socket.recv(256)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            if len(message) >= _DATA_AT + _EXEC.size:
                yield message


def open_arrivals(tell: Callable[[str], object] = lambda _: None) -> Arrivals | None:
    """Open the listener, or return None where the kernel refuses one, and tell `tell` why.

    New guests are then found at the next tick.
    """
    try:
        return Arrivals()
    except OSError as error:
        tell(f"no notice of new processes, they are found at the next tick: {error.strerror}")
        return None


def _what(message: bytes) -> int:
    what: int = _U32.unpack_from(message, _WHAT_AT)[0]
    return what


def _attach_filter(listener: socket.socket) -> None:
    """Let only execs and answers through, because on a busy host forks and exits would wake us all day.

    The classic BPF program loads the event's kind (as a big-endian word), and accepts or drops the message by it.
    """
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (0x20, 0, 0, _WHAT_AT),
            (0x15, 1, 0, socket.htonl(EVENT_EXEC)),
            (0x15, 0, 1, socket.htonl(EVENT_NONE)),
            (0x06, 0, 0, 0xFFFFFFFF),
            (0x06, 0, 0, 0),
        )
    )
    code = ctypes.create_string_buffer(program, len(program))
    listener.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    )
