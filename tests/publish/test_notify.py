"""systemd hears the right words, on a socket of our own, and nothing in the environment can hurt us."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ksmtuned_py.publish.notify import Notifier


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """A service manager that listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(10)
        yield listener


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[tuple[socket.socket, Notifier]]:
    path = str(tmp_path / "notify")
    with manager(path) as listener:
        yield listener, Notifier({"NOTIFY_SOCKET": path})


def test_words(heard: tuple[socket.socket, Notifier]) -> None:
    listener, notifier = heard
    notifier.ready()
    notifier.watchdog()
    notifier.stopping()
    notifier.extend_timeout(1.5)
    notifier.status("cruise: 3.2 GiB saved, ksmd 0.3 % of a core")
    assert [listener.recv(4096) for _ in range(5)] == [
        b"READY=1",
        b"WATCHDOG=1",
        b"STOPPING=1",
        b"EXTEND_TIMEOUT_USEC=1500000",
        b"STATUS=cruise: 3.2 GiB saved, ksmd 0.3 % of a core",
    ]


def test_a_reload_carries_its_time(heard: tuple[socket.socket, Notifier]) -> None:
    listener, notifier = heard
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    words = dict(line.split("=") for line in listener.recv(4096).decode().splitlines())
    assert words.keys() == {"RELOADING", "MONOTONIC_USEC"}
    assert before <= int(words["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


def test_a_status_cannot_say_more_than_a_status(heard: tuple[socket.socket, Notifier]) -> None:
    listener, notifier = heard
    notifier.status("a guest called\nREADY=1")
    assert listener.recv(4096) == b"STATUS=a guest called READY=1"


def test_any_text_can_be_sent(heard: tuple[socket.socket, Notifier]) -> None:
    listener, notifier = heard
    notifier.status("é \udcff")
    assert listener.recv(4096) == "STATUS=é ?".encode()


def test_an_abstract_socket() -> None:
    name = f"ksmtuned-py-test-{os.getpid()}"
    with manager(f"\0{name}") as listener:
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert listener.recv(4096) == b"READY=1"


@pytest.mark.parametrize(
    "address",
    [None, "", "relative", "/no/such/socket", "/dev/null", "@nobody-listens", "/" + "x" * 200, "/a\0b", "vsock:2:1"],
)
def test_a_bad_socket_does_not_matter(address: str | None) -> None:
    notifier = Notifier({} if address is None else {"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.status("well")


def test_a_manager_that_does_not_read_does_not_hold_us_up(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with manager(path) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        with suppress(BlockingIOError):  # until its queue is full
            for _ in range(100_000):
                filler.sendto(b"WATCHDOG=1", path)
        Notifier({"NOTIFY_SOCKET": path}).ready()  # returns
        assert listener.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("environment", "interval_seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_how_often_the_watchdog_wants_to_hear(environment: dict[str, str], interval_seconds: float | None) -> None:
    assert Notifier(environment).watchdog_interval_seconds() == interval_seconds
