"""Gives the tests of the real process a made-up tree, and the daemon on it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.daemon import QUICK, Daemon, Sections
from tests.support.trees import FakeGuest, make_fake_tree

Start = Callable[..., Daemon]


def content(directory: Path) -> dict[Path, bytes]:
    """Every file below a directory with its text."""
    return {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A fake tree with one guest, and with knobs that are not the defaults."""
    guest = FakeGuest(pid=1001, name="web")
    return make_fake_tree(tmp_path / "root", guests=[guest], run=1, pages_to_scan=123, sleep_millisecs=45)


@pytest.fixture
def start(tmp_path: Path, root: Path) -> Iterator[Start]:
    """Starts a daemon on the tree, which is up when the call returns, and gone after the test."""
    with ExitStack() as stack:

        def start(sections: Sections = QUICK, *arguments: str, name: str = "daemon") -> Daemon:
            daemon = stack.enter_context(Daemon(tmp_path / name, sections, *arguments, root=root))
            daemon.wait_status(lambda status: status["pid"] == daemon.pid, "first tick")
            return daemon

        yield start
