"""Everybody hears of a tick, and no surface that fails keeps the others from it."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from ksmtuned_py.errors import Garbage
from ksmtuned_py.model.record import Priority, Record
from ksmtuned_py.publish import statusfile
from ksmtuned_py.publish.journal import Journal
from ksmtuned_py.publish.metrics import Metrics
from ksmtuned_py.publish.notify import Notifier
from ksmtuned_py.publish.publisher import Publisher
from tests.support.reports import report


class Told:
    """A publisher whose surfaces can be looked at."""

    def __init__(self, status_path: Path, notifier: Notifier) -> None:
        self.status_path = status_path
        self.records: list[Record] = []
        self.metrics = Metrics()
        self.publisher = Publisher(self.metrics, Journal(self.records.append), notifier, status_path)

    @property
    def errors(self) -> list[str]:
        return [record.message for record in self.records if record.priority is Priority.ERROR]


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path / "status.json", Notifier({}))


def test_all_surfaces_tell_the_same_tick(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        told = Told(tmp_path / "status.json", Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}))
        told.publisher.publish(report())
        line, ping = manager.recv(4096).decode(), manager.recv(4096).decode()
    status = statusfile.read(told.status_path)
    assert status is not None
    assert (line, ping) == (f"STATUS={status.line}", "WATCHDOG=1")
    assert told.records[0].message == status.decision.reason
    assert status.saved_bytes == 1073741824
    assert b"ksmtuned_saved_bytes 1.073741824e+09\n" in told.metrics.exposition()


def test_a_failed_tick_keeps_the_last_report_and_counts(told: Told) -> None:
    told.publisher.failed_tick(Garbage("/sys/x", "?", "a number"))  # at first there is nothing to show yet
    told.publisher.publish(report())
    told.publisher.failed_tick(Garbage("/sys/x", "?", "a number"))
    assert b'ksmtuned_errors_total{where="tick"} 2.0' in told.metrics.exposition()
    status = statusfile.read(told.status_path)
    assert status is not None
    assert status.totals.last_error == "Garbage: /sys/x: wanted a number, found '?'"
    assert status.totals.ticks == 1


def test_a_failed_tick_is_no_sign_of_life(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        told = Told(tmp_path / "status.json", Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}))
        told.publisher.failed_tick(Garbage("/sys/x", "?", "a number"))
        with pytest.raises(BlockingIOError):
            manager.recv(4096)


def test_a_status_file_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    told = Told(tmp_path / "gone" / "status.json", Notifier({}))
    told.publisher.publish(report())
    told.publisher.publish(report())
    assert len(told.errors) == 1
    assert "No such file or directory" in told.errors[0]
    told.publisher.publish(report())
    assert b'ksmtuned_errors_total{where="publish"} 2.0' in told.metrics.exposition()  # the third shows at the next


def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)

    def broken_pipe(record: Record) -> None:
        os.write(write_end, record.message.encode())

    metrics = Metrics()
    publisher = Publisher(metrics, Journal(broken_pipe), Notifier({}), tmp_path / "status.json")
    try:
        publisher.publish(report())
    finally:
        os.close(write_end)
    assert b'ksmtuned_errors_total{where="publish"} 1.0' in metrics.exposition()
    assert statusfile.read(tmp_path / "status.json") is not None


def test_health(told: Told) -> None:
    assert told.publisher.trouble() == "no tick yet"
    told.publisher.publish(report())
    assert told.publisher.trouble() is None
    due_long_ago = replace(report().decision, next_tick_seconds=-100.0)
    told.publisher.publish(replace(report(), decision=due_long_ago))
    assert told.publisher.trouble() == "the tick is 1 min 40 s late"


def test_close_takes_the_status_file_away(told: Told) -> None:
    told.publisher.publish(report())
    told.publisher.withdraw()
    assert statusfile.read(told.status_path) is None
    told.publisher.withdraw()
