"""`capacity` answers from a trace and from the daemon's record, by its exit code, too, or says why it cannot."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ksmtuned_py.cli.main import main
from ksmtuned_py.config import Config
from ksmtuned_py.model import Memory, Snapshot
from ksmtuned_py.policy.demand import DemandRecord, moment
from ksmtuned_py.publish import capacityfile, statusfile
from ksmtuned_py.publish.totals import Totals
from ksmtuned_py.trace.writer import TraceWriter
from ksmtuned_py.units import GIB
from tests.support.reports import report
from tests.support.snapshots import guest, snapshot

HOURS = 12 * 24


def seen(hour: int, left_gib: int) -> Snapshot:
    guests = tuple(guest(f"vm-{number}", number, GIB + (hour * hour % 7 << 20)) for number in (1, 2, 3))
    memory = Memory(total_bytes=64 * GIB, available_bytes=left_gib * GIB)
    return replace(snapshot(at=hour * 3600.0, guests=guests), memory=memory)


def traced(path: Path, left_gib: int, hours: int = HOURS) -> Path:
    writer = TraceWriter(path, Config(), limit_bytes=2**20)
    for hour in range(hours):
        writer.publish(replace(report(), snapshot=seen(hour, left_gib)))
    writer.close()
    return path


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return traced(tmp_path_factory.mktemp("trace") / "trace", 30)


def daemon_says(directory: Path, now: Snapshot) -> None:
    clock = replace(now.clock, monotonic_seconds=time.monotonic())
    status = statusfile.status_of(replace(report(), snapshot=replace(now, clock=clock)), Totals())
    statusfile.write(directory / "status.json", statusfile.status_json(status))


def asked(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["capacity", *map(str, words)])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_from_a_trace_with_the_part_that_was_moved_away(roomy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert roomy.with_name("trace.1").exists()
    code, out, err = asked(capsys, "--trace", roomy)
    assert (code, err) == (0, "")
    assert out.startswith("29 more guests like vm-2 fit\n")
    assert "  record           12 days, of which 10 parts of 24 h were compared\n" in out


def test_for_programs_and_like_another_guest(roomy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = asked(capsys, "--trace", roomy, "--guest", "vm-1", "--risk", "5%", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["fits"], found["like"], found["risk"], found["is_short"]) == (True, "vm-1", 0.05, False)
    assert found["chance"] <= 0.05


def test_a_name_in_a_trace_steers_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = traced(tmp_path / "trace", 1, 20)
    path.write_text(path.read_text().replace('"vm-2"', '"\\u001b[2J"'))
    _, out, _ = asked(capsys, "--trace", path)
    assert out.startswith(r"no guest more like \x1b[2J fits")


def test_a_full_host_has_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = asked(capsys, "--trace", traced(tmp_path / "trace", 1))
    assert code == 1
    assert out.startswith("no guest more like vm-2 fits\n")
    assert "it has no room to land" in out


def test_a_short_record_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = asked(capsys, "--trace", traced(tmp_path / "trace", 30, 20))
    assert code == 0
    assert err.startswith(("from 20 h only: ", "from 19 h "))


@pytest.mark.parametrize(
    ("hours", "words", "reason"),
    [
        (0, [], "has no tick"),
        (1, [], "the record has 1 min, and 6 h are the least"),
        (30, ["--guest", "nobody"], "nobody: no guest has that name"),
    ],
)
def test_no_evidence_is_no_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hours: int, words: list[str], reason: str
) -> None:
    code, out, err = asked(capsys, "--trace", traced(tmp_path / "trace", 30, hours), *words)
    assert (code, out) == (2, "")
    assert reason in " ".join(err.split())


@pytest.mark.parametrize("risk", ["0", "51%", "-1%", "nan", "much"])
def test_an_absurd_risk_is_refused(risk: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["capacity", f"--risk={risk}"])
    assert ended.value.code == 2
    assert "wanted a percentage" in capsys.readouterr().err


def test_from_the_record_of_the_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = DemandRecord()
    for hour in range(HOURS):
        record.add(moment(seen(hour, 30)))
    capacityfile.write(tmp_path / capacityfile.NAME, record)
    daemon_says(tmp_path, seen(HOURS, 30))
    code, out, _ = asked(capsys, "--runtime-dir", tmp_path)
    assert code == 0
    assert out.startswith("29 more guests like vm-2 fit\n")


def test_a_daemon_that_has_just_begun_knows_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon_says(tmp_path, seen(1, 30))
    code, out, err = asked(capsys, "--runtime-dir", tmp_path)
    assert (code, out) == (2, "")
    assert "hint: the daemon records while it runs" in err
