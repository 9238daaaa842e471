"""Gets the socket for /metrics: the one that systemd passes (sd_listen_fds(3)), or one at the configured address."""

import errno
import os
import socket
from collections.abc import Mapping

from ksmtuned_py.errors import AddressInUse, UnfitSocket

FIRST_PASSED = 3
"""The descriptor of the first socket that is passed."""
NOT_ALLOWED = "this service may open none, and takes that of ksmtuned-py.socket, which does not run"


def passed(environ: Mapping[str, str] = os.environ) -> socket.socket | None:
    """The socket that the service manager passes to this process; None when it passes none.

    Raises UnfitSocket for what cannot be served: anything but one listening TCP socket.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):  # not set, or left over from a parent
        return None
    number = environ.get("LISTEN_FDS", "")
    if number != "1":
        raise UnfitSocket(f"wanted one socket, and LISTEN_FDS is {number[:20]!r}")
    try:
        found = socket.socket(fileno=FIRST_PASSED)
    except OSError as error:
        raise UnfitSocket(f"descriptor {FIRST_PASSED}: {error.strerror}") from error
    is_tcp = found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM
    if not (is_tcp and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)):
        raise UnfitSocket(f"wanted a TCP socket that listens, and it is {_kind(found)}")
    found.set_inheritable(False)
    return found


def listen(address: str, given: socket.socket | None = None) -> socket.socket:
    """Listen on the socket that was given, which stays open, or at HOST:PORT; raises AddressInUse."""
    return given.dup() if given is not None else _listen_at(address)


def address_of(listener: socket.socket) -> str:
    """The address of a TCP socket, as HOST:PORT."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen_at(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, where = found[0]
        return socket.create_server(where[:2], family=family, backlog=128)
    except OSError as error:
        reason = NOT_ALLOWED if error.errno == errno.EAFNOSUPPORT else error.strerror or str(error)
        raise AddressInUse(address, reason) from error


def _kind(found: socket.socket) -> str:
    """The words for a socket of the wrong kind, as 'AF_UNIX, SOCK_STREAM'."""
    names = [getattr(each, "name", str(each)) for each in (found.family, found.type)]
    return ", ".join(names)
