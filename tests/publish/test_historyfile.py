"""The past survives a restart, and a file that is not what it should be keeps nobody from anything."""

import os
import resource
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ksmtuned_py.publish.history import COLUMNS, HOUR_SECONDS, STEPS, History
from ksmtuned_py.publish.historyfile import MOST_BYTES, NAME, SCHEMA, HistoryFile
from tests.publish.test_history import NOW, filled, row, times
from tests.support.need import need


def kept(directory: Path, history: History) -> list[str]:
    """Load and save a history, as a daemon does from its start to its end, and return what it told."""
    told: list[str] = []
    file = HistoryFile(directory, history, told.append)
    file.start()
    file.stop()
    return told


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory of our own."""
    made = tmp_path / "state"
    made.mkdir(mode=0o755)
    return made


def test_it_is_there_again_after_a_restart(place: Path) -> None:
    before = filled(HOUR_SECONDS)
    assert kept(place, before) == []
    after = History()
    assert kept(place, after) == []
    assert (
        after.since(NOW, HOUR_SECONDS, 2000) == before.since(NOW, HOUR_SECONDS, 2000)[:-1]
    )  # the last was not complete
    assert (place / NAME).stat().st_mode & 0o777 == 0o600
    assert [each.name for each in place.iterdir()] == [NAME]


def test_it_is_bounded_however_wrong_the_clock_was(place: Path) -> None:
    """A clock that stood in the year 2100 for a while neither fills the file nor hides what came later."""
    history = History()
    most = STEPS[0].most_rows
    history.give_back([(5, row(4_000_000_000.0 + number)) for number in range(most)])
    kept(place, history)
    history.give_back([(5, row(NOW - 3000 + number)) for number in range(1500)])
    assert kept(place, history) == []
    with closing(sqlite3.connect(place / NAME)) as file:
        [(count,)] = file.execute("SELECT count(*) FROM history")
    assert count == most
    assert (place / NAME).stat().st_size < MOST_BYTES / 8


def test_what_is_no_row_of_ours_is_left_out(place: Path) -> None:
    kept(place, filled(600))
    with closing(sqlite3.connect(place / NAME, isolation_level=None)) as file:
        file.execute("UPDATE history SET time_seconds = 'soon' WHERE id % 5 = 0")
        file.execute("UPDATE history SET mode = 'mad' WHERE id % 5 = 1")
        file.execute("UPDATE history SET guests = x'00ff' WHERE id % 5 = 2")
        file.execute("UPDATE history SET time_seconds = 9e999 WHERE id % 5 = 3")
    after = History()
    assert kept(place, after) == []
    found = times(after.since(NOW, HOUR_SECONDS, 2000))
    assert 0 < len(found) < 20


def corrupt(path: Path) -> None:
    kept(path.parent, filled(HOUR_SECONDS))
    text = path.read_bytes()
    path.write_bytes(text[:4096] + os.urandom(len(text) - 4096))


def locked(path: Path) -> object:
    kept(path.parent, filled(60))
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("BEGIN EXCLUSIVE")
    return file


def with_a_trigger(path: Path) -> None:
    kept(path.parent, History())
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TRIGGER more AFTER INSERT ON history BEGIN SELECT 1; END")


def as_a_view(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        endless = "WITH RECURSIVE more(x) AS (SELECT 1 UNION ALL SELECT x FROM more) SELECT * FROM more"
        file.execute(f"CREATE VIEW history AS {endless}")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 << 30)


def linked(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.write_bytes(b"precious")
    path.symlink_to(elsewhere)


def linked_twice(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.write_bytes(b"precious")
    path.hardlink_to(elsewhere)


def linked_journal(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    elsewhere.write_bytes(b"precious")
    path.with_name(f"{NAME}-journal").symlink_to(elsewhere)


def open_to_others(path: Path) -> None:
    path.touch()
    path.chmod(0o666)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("no database " * 1000), "not a database"),
    "corrupt": (corrupt, "malformed"),
    "locked": (locked, "locked"),
    "trigger": (with_a_trigger, "another version, or of another program"),
    "view": (as_a_view, "another version, or of another program"),
    "100 GiB": (huge, "larger than any of ours"),
    "link": (linked, "no file of ours"),
    "hard link": (linked_twice, "no file of ours"),
    "link beside it": (linked_journal, "no file of ours"),
    "fifo": (os.mkfifo, "no file of ours"),
    "directory": (Path.mkdir, "no file of ours"),
    "open to others": (open_to_others, "no file of ours"),
    "open directory": (lambda path: path.parent.chmod(0o777), "its directory is not ours alone"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_is_not_what_it_should_be_is_told_once_and_left_alone(place: Path, kind: str) -> None:
    make, reason = HOSTILE[kind]
    keep = make(place / NAME)
    history = filled(60)
    began = time.monotonic()
    told = kept(place, history)
    assert time.monotonic() - began < 60
    [sentence] = told  # although it was tried twice
    assert sentence.startswith(f"the history lives in memory alone: {place / NAME}: ")
    assert reason in sentence
    assert len(history.since(NOW, HOUR_SECONDS, 2000)) > 5
    elsewhere = place.parent / "elsewhere"
    assert not elsewhere.exists() or elsewhere.read_bytes() == b"precious"
    del keep


def test_a_file_of_another_user(place: Path) -> None:
    need(os.geteuid() == 0, "root, to give a file away")
    (place / NAME).touch()
    os.chown(place / NAME, 65534, 65534)
    [sentence] = kept(place, filled(60))
    assert "no file of ours" in sentence


def test_a_directory_that_is_not_there(place: Path) -> None:
    [sentence] = kept(place / "gone", filled(60))
    assert "No such file or directory" in sentence


def test_a_full_disk_loses_nothing_of_what_was_saved(place: Path) -> None:
    kept(place, filled(600))
    before = (place / NAME).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), limits[1]))
    history = History()
    history.give_back([(5, row(NOW + number)) for number in range(1500)])
    try:
        told = kept(place, history)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(told) == 1
    assert kept(place, history) == []  # what waited is saved as soon as there is room
    after = History()
    kept(place, after)
    assert len(after.since(NOW + 1500, HOUR_SECONDS, 100_000)) == STEPS[0].most_rows


def test_its_table_has_a_column_for_each_of_the_history() -> None:
    assert all(f"{name} " in SCHEMA for name in COLUMNS)
