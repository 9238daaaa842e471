"""Traces survive all that happens while they are written, give clear errors when broken, and can be decided anew."""

import json
import os
import signal
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.cli.main import main
from ksmtuned_py.cli.policies import with_policy
from ksmtuned_py.config import Config
from ksmtuned_py.model import Counters, Decision, Knobs, Mode, Snapshot, Wake
from ksmtuned_py.policy import decide
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.report import Report
from ksmtuned_py.trace.lines import BadTrace, Header, Tick, line_of, parse_header, parse_tick
from ksmtuned_py.trace.reader import open_trace
from ksmtuned_py.trace.replay import ReplayedTick, compare, replay
from ksmtuned_py.trace.writer import NotRecorded, TraceWriter
from ksmtuned_py.units import GIB
from tests.support.process import Program, wait_for
from tests.support.reports import BARE, DECISION, FULL, report
from tests.support.snapshots import guest, snapshot

CONFIG = Config()
zstd = pytest.mark.parametrize("name", ["trace.jsonl", "trace.jsonl.zst"])


def written(path: Path, reports: list[Report], config: Config = CONFIG, limit_bytes: int = 2**30) -> Path:
    if path.suffix == ".zst":
        pytest.importorskip("zstandard")
    writer = TraceWriter(path, config, limit_bytes)
    for each in reports:
        writer.publish(each)
    writer.close()
    return path


def decided(snapshots: list[Snapshot], config: Config = CONFIG) -> list[Report]:
    """The reports of a daemon that sees these snapshots."""
    trend, reports = Trend.begin(config), []
    for seen in snapshots:
        trend = trend.after(seen, config)
        reports.append(replace(report(seen), decision=decide(seen, trend, config)))
    return reports


def day() -> list[Snapshot]:
    """Snapshots of a day on which a guest comes, is merged, and then memory gets short."""
    return [
        snapshot(
            at=10 * number,
            counters=Counters(full_scans=number // 2, pages_sharing=min(number, 5) * 1000),
            cpu_seconds=number / 10,
            available_bytes=(10 if number < 20 else 1) * GIB,
            guests=(guest(rss_bytes=16 * GIB),),
        )
        for number in range(40)
    ]


@zstd
def test_what_was_written_is_read_back(tmp_path: Path, name: str) -> None:
    reports = [report(FULL, after_seconds=number) for number in range(25)] + [report(BARE)]
    with open_trace(written(tmp_path / name, reports)) as trace:
        assert trace.header.config == CONFIG
        assert list(trace.ticks) == [Tick(snapshot=each.snapshot, decision=each.decision) for each in reports]


finite = st.floats(allow_nan=False)
knobs = st.builds(Knobs, run=st.integers(0, 2), pages_to_scan=st.none() | st.integers(0, 2**32))


@given(
    st.builds(
        Decision, mode=st.sampled_from(Mode), rule=st.text(), reason=st.text(), knobs=knobs, next_tick_seconds=finite
    ),
    st.builds(Counters, general_profit=st.none() | st.integers(-(2**63), 2**63)),
    st.frozensets(st.sampled_from([Wake.GUEST, Wake.PRESSURE, Wake.ASKED])),
)
def test_any_tick_makes_the_round_trip(decision: Decision, counters: Counters, woken_by: frozenset[Wake]) -> None:
    tick = Tick(snapshot=replace(FULL, counters=counters, woken_by=woken_by), decision=decision)
    line = line_of(tick)
    assert line.count(b"\n") == 1
    assert parse_tick("file", 2, line) == tick


@given(st.binary(max_size=60) | st.just(b"[" * 100_000))
def test_whatever_a_foreign_file_holds_is_one_error_with_its_line(text: bytes) -> None:
    with pytest.raises(BadTrace, match="file:1: "):
        parse_header("file", text)


def test_another_schema_is_told_from_no_trace() -> None:
    line = json.dumps({**json.loads(line_of(Header(config=CONFIG))), "schema": 2}).encode()
    with pytest.raises(BadTrace, match="file:1: wanted schema 1, found 2"):
        parse_header("file", line)
    with pytest.raises(BadTrace, match="no trace"):
        parse_header("file", b'{"a": 1}')


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda text: text[:-20], r":4: the line is cut off"),
        (lambda text: text.replace(b'"page_bytes":4096', b'"page_bytes":"x"', 1), r":2: snapshot.page_bytes: "),
        (lambda text: text.replace(b'"decision"', b'"decisoin"', 1), r":2: "),
        (lambda text: text + b"hello\n", r":5: "),
        (lambda text: b"", r":1: this is no trace"),
    ],
    ids=["cut", "wrong type", "wrong key", "garbage", "empty"],
)
def test_a_broken_line_is_named(tmp_path: Path, break_it, words: str) -> None:  # type: ignore[no-untyped-def]  # lambdas
    path = written(tmp_path / "t.jsonl", [report(FULL)] * 3)
    path.write_bytes(break_it(path.read_bytes()))
    with pytest.raises(BadTrace, match=words), open_trace(path) as trace:
        list(trace.ticks)


@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_frame_is_an_error(tmp_path: Path, cut: bool) -> None:
    path = written(tmp_path / "t.zst", [report(FULL, after_seconds=10 * number) for number in range(9)])
    data = bytearray(path.read_bytes())
    if cut:
        del data[-20:]
    else:
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BadTrace), open_trace(path) as trace:
        list(trace.ticks)


@zstd
def test_a_line_without_an_end_takes_little_memory(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, [report()])
    with path.open("ab") as file:
        if path.suffix == ".zst":
            file.write(pytest.importorskip("zstandard").compress(bytes(GIB // 4)))
        else:
            file.truncate(GIB // 4)
    tracemalloc.start()
    with pytest.raises(BadTrace, match=r":3: damaged: a line has more than 8 MiB"), open_trace(path) as trace:
        list(trace.ticks)
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most_bytes < GIB // 8


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match="cannot be read"), open_trace(tmp_path / "nothing"):
        pass


@zstd
def test_its_size_is_bounded_and_both_parts_are_whole_traces(tmp_path: Path, name: str) -> None:
    limit = 40_000
    reports = [report(FULL, after_seconds=20 * number) for number in range(60)]
    path = written(tmp_path / name, reports, limit_bytes=limit)
    older = path.with_name(f"{name}.1")
    assert path.stat().st_size + older.stat().st_size <= limit
    ticks = []
    for part in (older, path):
        with open_trace(part) as trace:
            ticks += list(trace.ticks)
    assert [tick.snapshot for tick in ticks] == [each.snapshot for each in reports[-len(ticks) :]]
    assert len(ticks) > 3


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("precious")
    with pytest.raises(NotRecorded, match="File exists"):
        TraceWriter(path, CONFIG)
    assert path.read_text() == "precious"


def test_a_full_disk_ends_it_and_leaves_whole_lines(tmp_path: Path) -> None:
    # RLIMIT_FSIZE makes the kernel write less than asked, as a full disk does.
    path = tmp_path / "t.jsonl"
    program = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path; from tests.support.reports import report\n"
        "from ksmtuned_py.config import Config; from ksmtuned_py.trace.writer import TraceWriter, NotRecorded\n"
        f"writer = TraceWriter(Path({str(path)!r}), Config())\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n"
        "    for number in range(100): writer.publish(report(after_seconds=20 * number))\n"
        "except NotRecorded as error: print(error)\n"
    )
    with Program([sys.executable, "-c", program], tmp_path, {"PYTHONPATH": os.getcwd()}) as running:  # noqa: PTH109 - for the child
        assert running.wait(30) == 0
        assert "cannot record: the disk is full" in running.output()
    with open_trace(path) as trace:
        assert len(list(trace.ticks)) > 1


def test_the_same_policy_decides_alike_and_another_does_not(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", decided(day()))
    with open_trace(path) as trace:
        same = compare(list(replay(trace.ticks, trace.header.config)))
    assert (same.ticks, same.differing, same.stretches) == (40, 0, [])
    assert same.recorded == same.replayed
    with open_trace(path) as trace:
        other = compare(list(replay(trace.ticks, with_policy(CONFIG, "ksmtuned"))))
    assert other.differing == 40
    assert other.recorded == same.recorded
    assert sum(other.replayed.seconds_in.values()) == other.seconds == 390
    assert sum(stretch.ticks for stretch in other.stretches) == 40
    assert 1 < len(other.stretches) < 40


def test_a_long_trace_takes_no_more_memory_than_a_short_one() -> None:
    def most_bytes(ticks: int) -> int:
        steps = (
            ReplayedTick(seconds=number, recorded=replace(DECISION), replayed=replace(DECISION, reason="x" * 4000))
            for number in range(ticks)
        )
        tracemalloc.start()
        assert compare(steps).ticks == ticks
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert most_bytes(5000) < 2 * most_bytes(50)


def test_the_verb_shows_the_differences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(written(tmp_path / "t.jsonl", decided(day())))
    assert main(["replay", path]) == 0
    assert "40 ticks in 6 min 30 s: 40 decided alike, 0 not" in capsys.readouterr().out
    assert main(["replay", path, "--policy", "mom"]) == 0
    text = capsys.readouterr().out
    assert "0 decided alike, 40 not" in text
    assert "pages_to_scan=400" in text
    assert main(["replay", path, "--policy", "adaptive:eager", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["comparison"]["ticks"] == 40
    assert told["comparison"]["differing"] > 0
    assert main(["replay", str(tmp_path)]) == 2


def test_no_text_of_a_foreign_trace_steers_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = replace(report(FULL), decision=replace(report(FULL).decision, reason="\x1b[2J\x07"))
    assert main(["replay", str(written(tmp_path / "t.jsonl", [hostile]))]) == 0
    text = capsys.readouterr().out
    assert r"\x1b[2J\x07" in text
    assert all(line.isprintable() for line in text.splitlines())


def test_record_writes_what_replay_reads_even_after_a_kill(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[daemon]\nbackend = "model"\ntick_seconds = 0.02\nidle_tick_seconds = 0.02\n')
    for number, name in ((signal.SIGTERM, "a.jsonl"), (signal.SIGKILL, "b.jsonl")):
        path = tmp_path / name
        command = [sys.executable, "-m", "ksmtuned_py", "record", str(path), "--config", str(config)]
        with Program(command, tmp_path) as program:
            wait_for(lambda: path.exists() and path.read_bytes().count(b"\n") > 1, 20, "a recorded tick")  # noqa: B023 - called here
            code = program.end(number)
        assert code == (0 if number == signal.SIGTERM else -number)
        with open_trace(path) as trace:
            ticks = list(trace.ticks)
        assert ticks
        assert {tick.decision.mode for tick in ticks} == {Mode.BOOST}
        assert ticks[0].snapshot.knobs.run == 0, "it only watches"


def test_a_trace_from_before_huge_pages_were_seen_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "trace", [report()])
    lines = path.read_text().splitlines()
    tick = json.loads(lines[1])
    del (
        tick["snapshot"]["cpu_pressure"],
        tick["snapshot"]["idle_seconds"],
        tick["snapshot"]["memory"]["anon_huge_bytes"],
    )
    for each in tick["snapshot"]["guests"]:
        del each["huge_bytes"]
    path.write_text(f"{lines[0]}\n{json.dumps(tick)}\n")
    with open_trace(path) as trace:
        [read] = trace.ticks
    assert (read.snapshot.cpu_pressure, read.snapshot.idle_seconds) == (None, None)
    assert {each.huge_bytes for each in read.snapshot.guests} == {None}
