"""Keeps the history in an SQLite file, on a thread of its own: no tick ever waits for a disk.

The file is a copy. What is wrong with it is told once, and the history lives in memory as before.
"""

import math
import os
import sqlite3
import stat
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from ksmtuned_py.door.descriptors import begin
from ksmtuned_py.door.runtime import is_ours
from ksmtuned_py.publish.history import COLUMNS, MODE, MODES, STEPS, UNKNOWN, History, Row

NAME = "history.sqlite"
SAVE_SECONDS = 60.0
"""Between two writes, each of 20 KiB at most. What a crash may lose, too."""
PATIENCE_SECONDS = 2.0
"""The time that the last write has when the daemon ends."""
MOST_BYTES = 16 << 20
"""A file of ours is 2 MiB at most."""
FIELDS = ", ".join(f"{name} {'TEXT' if name == 'mode' else 'REAL'}" for name in COLUMNS)
SCHEMA = f"CREATE TABLE history (id INTEGER PRIMARY KEY, step_seconds INTEGER, {FIELDS})"
INSERT = f"INSERT INTO history (step_seconds, {', '.join(COLUMNS)}) VALUES (?{', ?' * len(COLUMNS)})"  # noqa: S608 - the names are ours
# By their order, and not by their time: a clock that was wrong for a while may neither fill the file nor empty it.
NEWEST = "SELECT id FROM history WHERE step_seconds = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
FORGET = f"DELETE FROM history WHERE step_seconds = ? AND id <= ({NEWEST})"  # noqa: S608 - the names are ours
SELECT = f"SELECT {', '.join(COLUMNS)} FROM history WHERE step_seconds = ? ORDER BY id DESC LIMIT ?"  # noqa: S608 - the names are ours


class UnfitFile(Exception):
    """The file, or what is beside it, is not what a daemon of ours left there."""


class HistoryFile:
    """Reads what an earlier daemon has saved, and saves what comes, from start() to stop()."""

    def __init__(self, directory: Path, history: History, tell: Callable[[str], None]) -> None:
        """Do nothing yet. `tell` hears what is wrong with the file, and may be called from any thread."""
        self._path = directory / NAME
        self._history = history
        self._tell = tell
        self._told: set[str] = set()
        self._ends = threading.Event()
        self._is_loaded = False
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)

    def start(self) -> None:
        """Begin, where there may be one more thread."""
        if not begin(self._thread):
            self._tell("no thread can be begun for the history, which lives in memory")

    def stop(self) -> None:
        """Save what is not saved yet. A disk that does not answer is not waited for."""
        self._ends.set()
        with suppress(RuntimeError):  # it was never begun
            self._thread.join(PATIENCE_SECONDS)

    def _run(self) -> None:
        self._try()
        while not self._ends.wait(SAVE_SECONDS):
            self._try()
        self._try()

    def _try(self) -> None:
        """Save, and say why not; each reason once."""
        unsaved: list[tuple[int, Row]] = []
        try:
            check(self._path)
            with closing(_opened(self._path)) as file:
                if not self._is_loaded:
                    self._load(file)
                unsaved = self._history.take_unsaved()
                _save(file, unsaved)
        except (sqlite3.Error, OSError, UnfitFile) as problem:
            self._history.give_back(unsaved)
            sentence = f"{self._path}: {problem}"
            if sentence not in self._told:
                self._told.add(sentence)
                self._tell(f"the history lives in memory alone: {sentence}")

    def _load(self, file: sqlite3.Connection) -> None:
        for fineness in STEPS:
            found = file.execute(SELECT, (fineness.seconds, fineness.most_rows))
            self._history.restore(fineness.seconds, reversed(list(_rows(found))))
        self._is_loaded = True


def check(path: Path) -> None:
    """Look whether SQLite may open this; raises UnfitFile, or OSError. Nobody else may write to the directory.

    So what is looked at here is still there when SQLite opens it. It looks for files with longer names, too.
    """
    if not is_ours(path.parent.stat()):
        raise UnfitFile("its directory is not ours alone")
    for each in path.parent.glob(f"{path.name}*"):
        seen = each.lstat()
        if not (stat.S_ISREG(seen.st_mode) and is_ours(seen) and seen.st_nlink == 1):
            raise UnfitFile(f"{each.name} is no file of ours")
        if seen.st_size > MOST_BYTES:
            raise UnfitFile(f"{each.name} is larger than any of ours")


def _opened(path: Path) -> sqlite3.Connection:
    """Open the file, and make it where there is none; raises sqlite3.Error or UnfitFile."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600))
    file = sqlite3.connect(path, timeout=0.0, isolation_level=None)
    try:
        file.execute("PRAGMA cache_size = -256")
        tables = [sql for (sql,) in file.execute("SELECT sql FROM sqlite_master")]
        if not tables:
            file.execute(SCHEMA)
        elif tables != [SCHEMA]:
            raise UnfitFile("it is of another version, or of another program; without it a new one is begun")
    except BaseException:  # whatever it was, no descriptor stays
        file.close()
        raise
    return file


def _save(file: sqlite3.Connection, unsaved: Iterable[tuple[int, Row]]) -> None:
    """Save rows, and forget as many of the oldest as are too many, in one step."""
    with file:
        file.execute("BEGIN IMMEDIATE")
        file.executemany(INSERT, [(seconds, *_fields(row)) for seconds, row in unsaved])
        for each in STEPS:
            file.execute(FORGET, (each.seconds, each.seconds, each.most_rows))


def _fields(row: Row) -> Iterator[float | str | None]:
    for number, value in enumerate(row):
        yield MODES[int(value)].value if number == MODE else value if math.isfinite(value) else None


def _rows(found: Iterable[tuple[object, ...]]) -> Iterator[Row]:
    """The rows of a file. What is no row of ours is left out, for a disk may have changed anything."""
    places = {mode.value: number for number, mode in enumerate(MODES)}
    for fields in found:
        *numbers, mode = fields
        known = all(isinstance(each, float) or each is None for each in numbers)
        if known and isinstance(numbers[0], float) and mode in places:
            yield array("d", [*(each if isinstance(each, float) else UNKNOWN for each in numbers), places[str(mode)]])
