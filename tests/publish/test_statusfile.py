"""The status file is whole or absent, is read back as written, and gives clear errors."""

import json
import math
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ksmtuned_py.errors import NotPermitted, Unreadable
from ksmtuned_py.model import Mode, Snapshot, Wake, WriteStatus
from ksmtuned_py.publish import statusfile
from ksmtuned_py.publish.totals import Totals
from ksmtuned_py.report import Report
from tests.support.need import need
from tests.support.reports import BARE, FOREIGN, FULL, report, result


def text_of(tick: Report, totals: Totals) -> bytes:
    return statusfile.status_json(statusfile.status_of(tick, totals))


def written(path: Path, tick: Report) -> statusfile.Status:
    statusfile.write(path, text_of(tick, Totals().after(tick)))
    status = statusfile.read(path)
    assert status is not None
    return status


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "status.json"


@pytest.mark.parametrize("host", [FULL, BARE], ids=["full", "bare"])
def test_what_was_written_is_read_back(path: Path, host: Snapshot) -> None:
    tick = report(host, result(), result(status=WriteStatus.LOST), foreign=(FOREIGN,), woken_by=frozenset({Wake.GUEST}))
    status = written(path, tick)
    assert (status.snapshot, status.decision, status.outcome) == (tick.snapshot, tick.decision, tick.outcome)
    assert status.tick_seconds == tick.tick_seconds
    assert status.totals == Totals().after(tick)
    assert isinstance(status.decision.mode, Mode)
    assert status.pid == os.getpid()


def test_the_keys_that_schema_1_promises(path: Path) -> None:
    written(path, report())
    content = json.loads(path.read_text())
    assert list(content) == [
        "schema",
        "version",
        "pid",
        "written_unix_seconds",
        "line",
        "saved_bytes",
        "profit_bytes",
        "cpu_seconds_per_saved_gib",
        "snapshot",
        "decision",
        "outcome",
        "tick_seconds",
        "totals",
        "decisions",
    ]
    assert content["schema"] == 1
    assert content["saved_bytes"] == 2**30
    assert [verdict["rule"] for verdict in content["decision"]["verdicts"]] == ["news", "yield"]


def test_an_infinite_number_survives_and_is_still_json(path: Path) -> None:
    tick = report()
    tick = replace(tick, decision=replace(tick.decision, next_tick_seconds=math.inf))
    assert written(path, tick).decision.next_tick_seconds == math.inf
    json.loads(path.read_text(), parse_constant=pytest.fail)


def test_the_line(path: Path) -> None:
    assert written(path, report()).line == "cruise: 1 GiB saved, 0 CPU-s per GiB"  # of a daemon that has just begun


def test_age_and_being_overdue(path: Path) -> None:
    status = written(path, report())
    ages = {seconds: seen_before(status, seconds) for seconds in (0, 100, -1e6)}
    assert 0 <= ages[0].age_seconds < 10
    assert ages[0].overdue_seconds == 0
    assert 100 <= ages[100].age_seconds < 110
    assert 90 <= ages[100].overdue_seconds < 100  # the next tick was due after 10 s
    assert ages[-1e6].age_seconds == 0


def seen_before(status: statusfile.Status, seconds: float) -> statusfile.Status:
    """The same, of a look at the host that was so long ago."""
    clock = replace(status.snapshot.clock, monotonic_seconds=time.monotonic() - seconds)
    return replace(status, snapshot=replace(status.snapshot, clock=clock))


def test_everybody_may_read_it_whatever_the_umask(path: Path) -> None:
    before = os.umask(0o077)
    try:
        written(path, report())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_no_file_means_no_daemon(path: Path) -> None:
    assert statusfile.read(path) is None
    assert statusfile.read(path.parent / "nowhere" / "status.json") is None


def test_after_remove_there_is_none(path: Path) -> None:
    written(path, report())
    statusfile.remove(path)
    assert statusfile.read(path) is None
    statusfile.remove(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no JSON"),
        ('{"schema": 1, "vers', "no JSON"),
        ("\x00\x01", "no JSON"),
        ("[]", "wanted status schema 1, found None"),
        ("42", "wanted status schema 1, found None"),
        ('{"schema": 0}', "wanted status schema 1, found 0"),
        (f'{{"schema": 1, "pid": 1{"0" * 400}}}', "no JSON: a number that is larger than any of ours"),
        ('{"schema": 1}', "no status of schema 1: version: Field required"),
    ],
)
def test_garbage_is_named(path: Path, text: str, sentence: str) -> None:
    path.write_text(text)
    with pytest.raises(Unreadable) as caught:
        statusfile.read(path)
    assert str(caught.value).startswith(f"{path}: cannot be read: ")
    assert sentence in str(caught.value)


def test_what_is_nested_too_deep_is_no_json(path: Path) -> None:
    path.write_text("[" * 100_000)
    with pytest.raises(Unreadable, match="no JSON: recursion limit"):
        statusfile.read(path)


def test_bytes_that_are_no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(Unreadable, match="no JSON"):
        statusfile.read(path)


@pytest.mark.parametrize("trap", ["a pipe", "a link to what never ends", "a directory"])
def test_nothing_in_its_place_is_waited_for_or_followed(path: Path, trap: str) -> None:
    match trap:
        case "a pipe":
            os.mkfifo(path)
        case "a directory":
            path.mkdir()
        case _:
            path.symlink_to("/dev/zero")
    with pytest.raises(Unreadable):
        statusfile.read(path)


def test_a_newer_field_does_not_matter(path: Path) -> None:
    written(path, report())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"invented_later": 1}))
    assert statusfile.read(path) is not None


def test_a_wrong_value_is_named_with_its_place(path: Path) -> None:
    written(path, report())
    content = json.loads(path.read_text())
    content["snapshot"]["counters"]["pages_shared"] = "many"
    path.write_text(json.dumps(content))
    with pytest.raises(Unreadable, match=r"snapshot\.counters\.pages_shared"):
        statusfile.read(path)


def test_a_file_that_is_not_ours_to_read(path: Path) -> None:
    need(os.geteuid() == 0, "root, to become somebody else")
    written(path, report())
    path.chmod(0o000)
    os.seteuid(65534)
    try:
        with pytest.raises(NotPermitted):
            statusfile.read(path)
    finally:
        os.seteuid(0)


def test_what_a_killed_daemon_left_does_not_matter(path: Path) -> None:
    path.with_name("status.json.new").write_text('{"schema": 1, "ha')
    assert statusfile.read(path) is None
    assert written(path, report()).saved_bytes == 2**30
    assert list(path.parent.iterdir()) == [path]


def test_readers_never_see_half_a_file(path: Path) -> None:
    ticks = [report(guests=FULL.guests * (count % 2 * 50)) for count in range(200)]
    written(path, ticks[0])
    done = threading.Event()

    def write_all() -> None:
        for tick in ticks:
            statusfile.write(path, text_of(tick, Totals()))
        done.set()

    thread = threading.Thread(target=write_all)
    thread.start()
    looks = 0
    while not done.is_set() or not looks:
        assert statusfile.read(path) is not None
        looks += 1
    thread.join()
