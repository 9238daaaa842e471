"""Gets the socket to serve on: the one that systemd passes (sd_listen_fds(3)), or one at the configured address."""

import errno
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

from ksmtuned_py.door.runtime import is_ours
from ksmtuned_py.errors import AddressInUse, UnfitSocket

FIRST_PASSED = 3
"""The descriptor of the first socket that is passed."""
UNIX = "unix:"
"""What an address begins with that is a path in the file system."""
FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
ANYBODY = 0o666
"""Who may connect to a socket in the file system: whoever may read the status file."""
BACKLOG = 128
NOT_ALLOWED = "this service may open none, and takes that of ksmtuned-py.socket, which does not run"


def passed(environ: Mapping[str, str] = os.environ) -> socket.socket | None:
    """The socket that the service manager passes to this process; None when it passes none.

    Raises UnfitSocket for what cannot be served: anything but one socket of TCP or of a path that listens.
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
    is_stream = found.family in FAMILIES and found.type == socket.SOCK_STREAM
    if not (is_stream and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)):
        raise UnfitSocket(f"wanted a stream socket that listens, and it is {_kind(found)}")
    found.set_inheritable(False)
    return found


def listen(address: str, given: socket.socket | None = None) -> socket.socket:
    """Listen on the socket that was given, which stays open, or at the address; raises AddressInUse."""
    if given is not None:
        return given.dup()
    try:
        return _listen_in(Path(address.removeprefix(UNIX))) if address.startswith(UNIX) else _listen_at(address)
    except OSError as error:
        reason = NOT_ALLOWED if error.errno == errno.EAFNOSUPPORT else error.strerror or str(error)
        raise AddressInUse(address, reason) from error


def mark_of(address: str) -> tuple[int, int] | None:
    """What tells the socket at a path from another in its place; None where there is none, or for no path."""
    if not address.startswith(UNIX):
        return None
    try:
        seen = Path(address.removeprefix(UNIX)).lstat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino


def leave(address: str, mark: tuple[int, int] | None) -> None:
    """Take away the socket with this mark, and no other that has taken its place."""
    if mark is not None and mark_of(address) == mark:
        with suppress(OSError):
            Path(address.removeprefix(UNIX)).unlink()


def port_of(listener: socket.socket) -> int:
    """The port of a socket; 0 for one that has a path."""
    where = listener.getsockname()
    return int(where[1]) if isinstance(where, tuple) else 0


def address_of(listener: socket.socket) -> str:
    """The address of a socket, as HOST:PORT or unix:/PATH."""
    if listener.family == socket.AF_UNIX:
        return f"{UNIX}{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen_at(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = found[0]
    return socket.create_server(where[:2], family=family, backlog=BACKLOG)


def _listen_in(path: Path) -> socket.socket:
    """Listen at a path. Nobody else may write to its directory, so it stays what it is meanwhile."""
    if not is_ours(path.parent.stat()):
        raise PermissionError(errno.EPERM, f"{path.parent} is not ours alone")
    if _is_left(path):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(ANYBODY)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _is_left(path: Path) -> bool:
    """Whether a daemon that was killed has left a socket there, on which nobody listens any more."""
    if not (path.is_socket() and stat.S_ISSOCK(path.lstat().st_mode)):
        return False
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED


def _kind(found: socket.socket) -> str:
    """The words for a socket of the wrong kind, as 'AF_UNIX, SOCK_STREAM'."""
    names = [getattr(each, "name", str(each)) for each in (found.family, found.type)]
    return ", ".join(names)
