"""A reload replaces the server, and whatever goes wrong with that, a later one mends it."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from ksmtuned_py.config import Metrics
from ksmtuned_py.daemon.serving import Serving
from ksmtuned_py.errors import AddressInUse
from ksmtuned_py.publish.findings import Findings
from ksmtuned_py.publish.journal import Journal
from ksmtuned_py.publish.metrics import Metrics as Shown
from ksmtuned_py.publish.notify import Notifier
from ksmtuned_py.publish.publisher import Publisher
from tests.publish.test_unix_socket import asked
from tests.support.daemon import free_port

ELSEWHERE = Metrics(address="192.0.2.1:10776")
"""An address that this host does not have."""


class Stage:
    """What serves on a socket in the file system, and what it has told."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o755)
        self.path = directory / "web.sock"
        self.told: list[str] = []
        journal = Journal(lambda record: self.told.append(record.message))
        self.serving = Serving(Publisher(Shown(), journal, Notifier({})), Findings(()))
        self.metrics = Metrics(address=f"unix:{self.path}")
        self.serving.open(self.metrics, None)

    def swap(self, new: Metrics) -> None:
        """Try a reload with nothing else in it."""
        with ExitStack() as undo:
            self.serving.swap(self.metrics, new, undo)
            undo.pop_all()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    made = Stage(tmp_path / "run")
    with closing(made.serving):
        yield made


def test_what_is_the_same_stays_as_it_is(stage: Stage) -> None:
    before = stage.path.stat().st_ino
    stage.swap(stage.metrics)
    assert (stage.path.stat().st_ino, asked(stage.path)) == (before, 200)


def test_a_socket_that_somebody_removed_is_there_again(stage: Stage) -> None:
    stage.path.unlink()
    stage.swap(stage.metrics)
    assert asked(stage.path) == 200


def test_where_the_old_one_cannot_return_the_reason_is_that_of_the_new_one(stage: Stage) -> None:
    stage.path.parent.chmod(0o777)  # others could put another in its place
    with pytest.raises(AddressInUse, match=r"192\.0\.2\.1"):
        stage.swap(ELSEWHERE)
    [told] = stage.told
    assert told.startswith("nothing is served until another reload: ")
    assert told.endswith("is not ours alone")
    stage.path.parent.chmod(0o755)
    stage.swap(stage.metrics)
    assert asked(stage.path) == 200


def test_threads_that_ran_out_end_no_daemon(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):  # which the reload tells
            stage.swap(Metrics(address=f"127.0.0.1:{free_port()}"))
    assert stage.told[0].startswith("nothing is served until another reload: ")
    stage.swap(stage.metrics)
    assert asked(stage.path) == 200
