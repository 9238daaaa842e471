"""The page is served on a socket in the file system, too."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from ksmtuned_py.errors import AddressInUse
from ksmtuned_py.publish.site import Sources
from ksmtuned_py.publish.web import Web
from tests.publish.test_web import registry


@contextmanager
def serving(path: Path) -> Iterator[Web]:
    web = Web(f"unix:{path}", Sources(registry=registry()))
    web.start()
    try:
        yield web
    finally:
        web.stop()


def asked(path: Path, host: str = "localhost") -> int:
    """The status of an answer on this socket."""
    client = HTTPConnection("localhost")
    client.sock = socket.socket(socket.AF_UNIX)
    client.sock.settimeout(10)
    client.sock.connect(str(path))
    try:
        client.request("GET", "/api/v1/history", headers={"Host": host})
        return client.getresponse().status
    finally:
        client.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "run"
    place.mkdir(mode=0o755)
    return place / "web.sock"


def test_whoever_may_read_the_status_may_connect(path: Path) -> None:
    with serving(path):
        assert asked(path) == 200
        assert asked(path, "evil.example") == 403  # a proxy may hand over what a browser was made to ask
        assert path.stat().st_mode & 0o777 == 0o666
    assert not path.exists()


def test_one_that_was_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with serving(path):
        assert asked(path) == 200


def test_one_that_is_in_use_is_not(path: Path) -> None:
    with serving(path):
        with pytest.raises(AddressInUse, match="in use"):
            Web(f"unix:{path}", Sources(registry=registry())).start()
        assert asked(path) == 200


def test_one_that_took_its_place_stays(path: Path) -> None:
    first = Web(f"unix:{path}", Sources(registry=registry()))
    first.start()
    path.unlink()
    with serving(path) as second:
        assert (first.is_there, second.is_there) == (False, True)
        first.stop()
        assert asked(path) == 200


@pytest.mark.parametrize("kind", ["file", "link", "fifo", "directory"])
def test_what_is_no_socket_stays(path: Path, kind: str) -> None:
    match kind:
        case "file":
            path.touch()
        case "link":
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(path.with_name("other")))
            path.symlink_to(path.with_name("other"))
        case "fifo":
            os.mkfifo(path)
        case _:
            path.mkdir()
    with pytest.raises(AddressInUse, match="in use"):
        Web(f"unix:{path}", Sources(registry=registry())).start()
    assert path.lstat()


def test_a_directory_where_others_could_put_another(path: Path) -> None:
    path.parent.chmod(0o777)
    with pytest.raises(AddressInUse, match="is not ours alone"):
        Web(f"unix:{path}", Sources(registry=registry())).start()
    with pytest.raises(AddressInUse, match="No such file"):
        Web(f"unix:{path.parent}/gone/web.sock", Sources(registry=registry())).start()
