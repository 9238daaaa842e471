"""The daemon serves /metrics on the socket that systemd passes, and says what is wrong with any other."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from ksmtuned_py.config import Config
from tests.support.daemon import (
    EVENTS_ONLY,
    KSMTUNED,
    Daemon,
    Sections,
    free_port,
    merged,
    one_clear_error,
    scrape,
)
from tests.support.process import HasDescriptor

DEFAULT: Sections = {"metrics": {"address": Config().metrics.address}}
TICKS = "ksmtuned_tick_duration_seconds_count"


def listener(host: str = "127.0.0.1") -> socket.socket:
    """A socket that listens, as systemd makes it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family)


def address_of(given: socket.socket) -> dict[str, dict[str, object]]:
    """The configuration with the address of a socket."""
    host, port = given.getsockname()[:2]
    return {"metrics": {"address": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"}}


def started(directory: Path, root: Path, sections: Sections, *sockets: HasDescriptor, **environment: str) -> Daemon:
    """A daemon with these sockets."""
    return Daemon(directory, merged(EVENTS_ONLY, sections), root=root, sockets=sockets, environment=environment)


def test_it_is_served_instead_of_the_address(root: Path, tmp_path: Path) -> None:
    with listener() as given, started(tmp_path / "daemon", root, DEFAULT, given) as daemon:
        port = given.getsockname()[1]
        daemon.wait_ticks(1)
        assert scrape(port)[TICKS] == 1
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", 10776), timeout=1):
            pass
        assert daemon.end() == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_that_is_that_of_the_socket_is_no_contradiction(root: Path, tmp_path: Path, host: str) -> None:
    with listener(host) as given, started(tmp_path / "daemon", root, address_of(given), given) as daemon:
        daemon.wait_ticks(1)
        assert daemon.end() == 0


@pytest.mark.parametrize("address", ["127.0.0.1:1", "0.0.0.0:10776", ""])
def test_another_address_is_a_contradiction(root: Path, tmp_path: Path, address: str) -> None:
    with listener() as given, started(tmp_path / "daemon", root, {"metrics": {"address": address}}, given) as daemon:
        assert daemon.wait() == 2
        said = error_of(daemon)
        assert said.startswith(f"metrics.address '{address}': systemd passes a socket at 127.0.0.1:")
        assert "systemctl edit ksmtuned-py.socket" in daemon.output()


def test_a_reload_with_another_address_keeps_the_old_configuration_and_the_socket(root: Path, tmp_path: Path) -> None:
    with listener() as given, started(tmp_path / "daemon", root, DEFAULT, given) as daemon:
        port = given.getsockname()[1]
        daemon.wait_ticks(1)
        daemon.reload(
            "reload refused, the old configuration stays: metrics.address",
            merged(EVENTS_ONLY, {"metrics": {"address": f"127.0.0.1:{free_port()}"}}),
        )
        assert scrape(port)[TICKS] >= 1
        daemon.reload("reloaded: ", merged(EVENTS_ONLY, address_of(given)))
        assert scrape(port)[TICKS] >= 1
        assert daemon.end() == 0


def test_it_is_not_closed_with_the_socket_of_systemd(root: Path, tmp_path: Path) -> None:
    given = listener()
    with started(tmp_path / "daemon", root, DEFAULT, given) as daemon:
        port = given.getsockname()[1]
        daemon.wait_ticks(1)
        given.close()
        assert scrape(port)[TICKS] == 1
        assert daemon.end() == 0


def test_a_socket_in_the_file_system(root: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(tmp_path / "socket"))
        given.listen()
        with started(tmp_path / "daemon", root, DEFAULT, given) as daemon, socket.socket(socket.AF_UNIX) as client:
            daemon.wait_ticks(1)
            client.settimeout(10)
            client.connect(str(tmp_path / "socket"))
            client.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.0 200"
            assert daemon.end() == 0
        assert (tmp_path / "socket").exists()  # it is systemd's


def unfit(kind: str) -> socket.socket:
    """A socket on which nothing is served."""
    match kind:
        case "datagrams":
            made = socket.socket(type=socket.SOCK_DGRAM)
            made.bind(("127.0.0.1", 0))
        case "netlink":
            made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        case _:
            made = socket.socket()
            made.bind(("127.0.0.1", 0))
    return made


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("datagrams", "AF_INET, SOCK_DGRAM"),
        ("netlink", "AF_NETLINK, SOCK_RAW"),
        ("silent", "AF_INET, SOCK_STREAM"),
    ],
)
def test_a_socket_of_another_kind(root: Path, tmp_path: Path, kind: str, told: str) -> None:
    with unfit(kind) as given, started(tmp_path / "daemon", root, DEFAULT, given) as daemon:
        assert daemon.wait() == 2
        assert error_of(daemon).endswith(f"wanted a stream socket that listens, and it is {told}")


@pytest.mark.parametrize("number", ["2", "0", "-1", "many", "1 ", "9" * 30])
def test_another_number_of_sockets(root: Path, tmp_path: Path, number: str) -> None:
    with listener() as given, started(tmp_path / "daemon", root, DEFAULT, given, LISTEN_FDS=number) as daemon:
        assert daemon.wait() == 2
        assert f"wanted one socket, and LISTEN_FDS is {number[:20]!r}" in error_of(daemon)


def test_two_sockets(root: Path, tmp_path: Path) -> None:
    with listener() as one, listener("::1") as two, started(tmp_path / "daemon", root, DEFAULT, one, two) as daemon:
        assert daemon.wait() == 2
        assert "wanted one socket, and LISTEN_FDS is '2'" in error_of(daemon)


def test_no_socket_at_all(root: Path, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, started(tmp_path / "daemon", root, DEFAULT, file) as daemon:
        assert daemon.wait() == 2
        assert error_of(daemon).endswith("descriptor 3: Socket operation on non-socket")


def test_a_descriptor_that_is_not_there(root: Path, tmp_path: Path) -> None:
    command = ["sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', "sh", *KSMTUNED, "run", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert one_clear_error(done).endswith("descriptor 3: Bad file descriptor")


@pytest.mark.parametrize("pid", ["1", "", "me", str(os.getpid())], ids=["init", "nothing", "a word", "its parent"])
def test_what_is_passed_to_another_process_is_not_ours(root: Path, tmp_path: Path, pid: str) -> None:
    port = free_port()
    with (
        listener() as given,
        started(
            tmp_path / "daemon", root, {"metrics": {"address": f"127.0.0.1:{port}"}}, given, LISTEN_PID=pid
        ) as daemon,
    ):
        daemon.wait_ticks(1)
        assert scrape(port)[TICKS] == 1
        assert daemon.end() == 0


def test_who_only_looks_leaves_it_alone(root: Path, tmp_path: Path) -> None:
    with listener() as given:
        daemon = Daemon(tmp_path / "daemon", EVENTS_ONLY, "--dry-run", "--once", root=root, sockets=[given])
        with daemon:
            assert daemon.wait() == 0


def error_of(daemon: Daemon) -> str:
    """The sentence of the one error it ended with."""
    lines = daemon.output().splitlines()
    assert len(lines) == 2, lines
    assert lines[1].startswith("hint: ")
    return lines[0].removeprefix("ksmtuned-py: error: ")
