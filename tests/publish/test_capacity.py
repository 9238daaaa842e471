"""The daemon's record of what memory is wanted for outlasts a restart, and its answers come beside the ticks."""

import json
from pathlib import Path

import pytest

from ksmtuned_py.errors import Unreadable
from ksmtuned_py.model import Snapshot
from ksmtuned_py.policy.demand import DemandRecord, moment
from ksmtuned_py.publish import capacityfile
from ksmtuned_py.publish.capacity import EVERY_SECONDS, CapacityWatch
from ksmtuned_py.units import GIB, KIB
from tests.support.process import wait_for
from tests.support.snapshots import guest, snapshot


def at(minute: float) -> Snapshot:
    """A host on which one guest comes after an hour."""
    guests = (guest("a", 1, GIB), *([guest("b", 2, 2 * GIB + round(minute) * 4096)] if minute >= 60 else []))
    return snapshot(at=minute * 60.0, guests=guests)


def recorded(minutes: int) -> DemandRecord:
    record = DemandRecord()
    for minute in range(minutes):
        record.add(moment(at(minute)))
    return record


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    record = recorded(200)
    capacityfile.write(tmp_path / "file", record)
    again = capacityfile.read(tmp_path / "file")
    assert (again.step_seconds, again.moments) == (record.step_seconds, record.moments)
    assert sum("guests" in json.loads(line) for line in (tmp_path / "file").read_text().splitlines()) == 2


def test_where_there_is_no_file_nothing_is_known_yet(tmp_path: Path) -> None:
    assert capacityfile.read(tmp_path / "none").moments == []


GOOD = '{"schema": 1, "step_seconds": 60}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        GOOD.replace("1,", "2,"),
        GOOD.replace("60", '"x"'),
        f"{GOOD}\n7",
        GOOD + '\n{"seconds": 1, "demand": {"": 1}, "fullness": 0, "own_kib": [1]}',
        GOOD + '\n{"seconds": 1, "demand": {"": 1}, "fullness": 0, "own_kib": [-1], "guests": ["a"]}',
        GOOD + '\n{"seconds": 1, "demand": {"": 1}, "fullness": 0, "own_kib": [1e99], "guests": ["a"]}',
        GOOD + '\n{"seconds": 1, "demand": [], "fullness": 0, "own_kib": [1], "guests": ["a"]}',
        GOOD + '\n{"seconds": NaN, "demand": {}, "fullness": 0, "own_kib": [], "guests": []}',
        GOOD + '\n{"seconds": 1e999, "demand": {}, "fullness": 0, "own_kib": [], "guests": []}',
        GOOD + '\n{"seconds": "nan", "demand": {}, "fullness": 0, "own_kib": [], "guests": []}',
        GOOD + '\n{"seconds": -1e300, "demand": {}, "fullness": 0, "own_kib": [], "guests": []}',
        GOOD + '\n{"seconds": 1e300, "demand": {}, "fullness": 0, "own_kib": [], "guests": []}',
        GOOD + '\n{"seconds": 1, "demand": {}, "fullness": 1e999, "own_kib": [], "guests": []}',
        GOOD + '\n{"seconds": 1, "demand": {"": 1' + "0" * 400 + '}, "fullness": 0, "own_kib": [], "guests": []}',
        "[" * 100_000,
        GOOD.replace("60", "0"),
        "\udcff",
    ],
)
def test_any_other_file_is_an_error_with_its_name_and_no_end_of_the_daemon(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(Unreadable, match=str(path)):
        capacityfile.read(path)
    assert CapacityWatch(path).consider(at(0)) is None


def test_answers_come_beside_the_ticks_and_the_record_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    capacityfile.write(path, recorded(400))
    watch = CapacityWatch(path)
    watch.consider(at(420))
    wait_for(lambda: watch.consider(at(420.1)) is not None, 20, "an answer")
    assert watch.answer is not None
    assert (watch.answer.like, watch.answer.is_short) == ("b", True)
    wait_for(lambda: capacityfile.read(path).moments[-1].seconds == 420 * 60, 20, "the record in the file")


def test_it_asks_again_in_ten_minutes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    watch = CapacityWatch(path)
    watch.consider(at(0))
    wait_for(path.exists, 20, "the first record")
    path.unlink()
    watch.consider(at((EVERY_SECONDS - 1) / 60))
    watch.consider(at(EVERY_SECONDS / 60))
    wait_for(path.exists, 20, "the second record")
    assert capacityfile.read(path).moments[-1].seconds == EVERY_SECONDS


def test_who_only_looks_leaves_no_file() -> None:
    assert CapacityWatch(None).consider(at(0)) is None


def test_a_full_record_of_many_guests_can_be_read_again(tmp_path: Path) -> None:
    record = DemandRecord()
    now = moment(snapshot(guests=tuple(guest(f"vm-{number}", number, 64 * GIB) for number in range(1, 300))))
    for minute in range(1000):
        record.add(now._replace(seconds=minute * 60.0))
    capacityfile.write(tmp_path / "file", record)
    assert (tmp_path / "file").stat().st_size < capacityfile.MOST_BYTES / 2
    assert capacityfile.read(tmp_path / "file").moments[0].own[0] == now.own[0] // KIB * KIB
