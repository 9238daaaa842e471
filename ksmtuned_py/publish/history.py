"""Remembers how things developed: finely for an hour, then thinner, up to a month, in bounded memory. Pure.

A row is an array of numbers, one for each column, in which NaN stands for what was not known.
"""

import math
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from threading import Lock
from typing import TypeAlias

from ksmtuned_py.model import Mode, Pressure
from ksmtuned_py.model.room import could_find_bytes
from ksmtuned_py.publish.rows import Told

MINUTE_SECONDS, HOUR_SECONDS, DAY_SECONDS = 60, 3600, 86_400
MOST_POINTS = 2000
UNSAVED_ROWS = 2000
"""The rows that wait for a disk that does not answer. More are lost to the file, and stay in memory."""
MODES = tuple(Mode)
UNKNOWN = math.nan

Row: TypeAlias = "array[float]"
Cell = float | str | None
Read = Callable[[Told], float | None]


def _share(pressure: Pressure | None) -> float | None:
    return pressure.some.avg10_percent / 100 if pressure else None


def _huge_bytes(told: Told) -> float | None:
    known = [guest.huge_bytes for guest in told.snapshot.guests if guest.huge_bytes is not None]
    return sum(known) if known else None


COLUMNS: dict[str, Read] = {
    "time_seconds": lambda told: told.snapshot.clock.unix_seconds,
    "saved_bytes": lambda told: told.snapshot.saved_bytes,
    "profit_bytes": lambda told: told.snapshot.profit_bytes,
    "debt_bytes": lambda told: told.snapshot.saved_bytes,
    "debt_room_bytes": lambda told: could_find_bytes(told.snapshot.memory),
    "headroom_bytes": lambda told: told.snapshot.memory.headroom_bytes,
    "huge_bytes": _huge_bytes,
    "copies_per_second": lambda told: told.report.trend.copy_on_write.pages_per_minute / MINUTE_SECONDS,
    "ksmd_cpu_share": lambda told: told.totals.scanner_share,
    "cpu_pressure": lambda told: _share(told.snapshot.cpu_pressure),
    "memory_pressure": lambda told: _share(told.snapshot.pressure),
    "guests": lambda told: len(told.snapshot.guests),
    "mode": lambda told: MODES.index(told.report.decision.mode),
}
"""What a row has, and where each number comes from. The mode is last, as its place in MODES."""
MODE = list(COLUMNS).index("mode")


@dataclass(frozen=True, slots=True)
class Fineness:
    """How finely a part of the past is kept, and how much of it."""

    seconds: int
    span_seconds: int

    @property
    def most_rows(self) -> int:
        """The rows that this takes."""
        return self.span_seconds // self.seconds


STEPS = (
    Fineness(5, HOUR_SECONDS),
    Fineness(MINUTE_SECONDS, 2 * DAY_SECONDS),
    Fineness(10 * MINUTE_SECONDS, 30 * DAY_SECONDS),
)
"""8,000 rows in all, which take less than 2 MiB."""


class _Series:
    """The rows of one step: those that are complete, and what the next one will be the mean of."""

    def __init__(self, step: Fineness) -> None:
        self.step = step
        self.complete: deque[Row] = deque(maxlen=step.most_rows)
        self.open: list[Row] = []

    def add(self, row: Row) -> "Row | None":
        """Add a row of a finer series, and return the row that is complete with that; None where none is."""
        done = None
        if self.open and self._slot(self.open[0]) != self._slot(row):
            done = mean(self.open)
            self.complete.append(done)
            self.open = []
        self.open.append(row)
        return done

    def between(self, begin_seconds: float, end_seconds: float) -> list[Row]:
        """The rows of a time, in its order. A clock that is set may have brought them in another one."""
        opened = [mean(self.open)] if self.open else []
        found = [row for row in (*self.complete, *opened) if begin_seconds <= row[0] <= end_seconds]
        return sorted(found, key=lambda row: row[0])

    def _slot(self, row: Row) -> int:
        return int(row[0] // self.step.seconds)


class History:
    """The past of one daemon. One thread adds to it, any other may read it."""

    def __init__(self) -> None:
        self._series = [_Series(step) for step in STEPS]
        self._unsaved: deque[tuple[int, Row]] = deque(maxlen=UNSAVED_ROWS)
        self._lock = Lock()

    def add(self, told: Told) -> None:
        """Add what a tick told. What is complete is what the next, thinner series adds up."""
        row: Row | None = row_of(told)
        with self._lock:
            for series in self._series:
                if row is not None and (row := series.add(row)) is not None:
                    self._unsaved.append((series.step.seconds, row))

    def restore(self, step_seconds: int, rows: Iterable[Row]) -> None:
        """Put the rows that were saved, the oldest first, before those of this process."""
        with self._lock:
            [series] = [each for each in self._series if each.step.seconds == step_seconds]
            series.complete = deque([*rows, *series.complete], maxlen=series.step.most_rows)

    def take_unsaved(self) -> list[tuple[int, Row]]:
        """The rows that were completed since the last call, each with the seconds of its step."""
        with self._lock:
            taken = list(self._unsaved)
            self._unsaved.clear()
            return taken

    def give_back(self, unsaved: list[tuple[int, Row]]) -> None:
        """Take rows back that could not be saved, as far as there is room."""
        with self._lock:
            self._unsaved = deque([*unsaved, *self._unsaved], maxlen=UNSAVED_ROWS)

    def since(self, now_seconds: float, seconds: float, points: int) -> list[list[Cell]]:
        """The last so many seconds, in at most so many rows."""
        with self._lock:
            fit = [each for each in self._series if each.step.span_seconds >= seconds]
            rows = (fit or self._series[-1:])[0].between(now_seconds - seconds, now_seconds)
        return [list(_cells(row)) for row in thinned(rows, seconds / points)[-points:]]


def row_of(told: Told) -> Row:
    """The row of one tick."""
    values = (read(told) for read in COLUMNS.values())
    return array("d", [UNKNOWN if value is None else value for value in values])


def mean(rows: list[Row]) -> Row:
    """The mean of rows, column by column, over what is known. The mode is the last one."""
    if len(rows) == 1:
        return rows[0]
    columns = zip(*rows, strict=True)
    found = array("d", [_mean_known(column) for column in columns])
    found[MODE] = rows[-1][MODE]
    return found


def thinned(rows: list[Row], width_seconds: float) -> list[Row]:
    """One row for each stretch of time. The stretches do not move from call to call, so no curve trembles."""
    return [mean(list(each)) for _, each in groupby(rows, key=lambda row: row[0] // width_seconds)]


def _mean_known(column: tuple[float, ...]) -> float:
    known = [value for value in column if math.isfinite(value)]
    return sum(known) / len(known) if known else UNKNOWN


def _cells(row: Row) -> Iterator[Cell]:
    """A row for readers. Large numbers are whole, for nobody needs half a byte."""
    for number, value in enumerate(row):
        if number == MODE:
            yield MODES[int(value)].value
        elif not math.isfinite(value):
            yield None
        else:
            yield round(value) if abs(value) >= 1000 else round(value, 4)
