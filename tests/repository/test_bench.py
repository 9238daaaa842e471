"""The bench measures what it says, and leaves the machine as it found it."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import measures, tables
from bench.arena import estimated_seconds, parse_arguments, planned, size_of
from bench.ballast import STEP_BYTES, Ballast
from bench.guests import Guest
from bench.loads import LOADS
from bench.managers import MANAGERS
from bench.runs import Figures, Run
from bench.samples import Sample
from ksmtuned_py.cli.workload import Mix
from ksmtuned_py.door import Door
from ksmtuned_py.guests.discovery import GuestFinder
from ksmtuned_py.units import MIB
from tests.support.ksmlock import need_real_ksm
from tests.support.process import Program, wait_for

LOCK_SECONDS = 600.0
"""The longest wait for the KSM lock, which somebody else may have."""
ARENA = [sys.executable, "-m", "bench.arena", "--guests=2", "--guest-mib=16"]
SAMPLE = Sample(
    seconds=0,
    saved_bytes=0,
    possible_bytes=100,
    profit_bytes=0,
    available_bytes=1000,
    ksmd_cpu_seconds=0,
    passes=0,
    guests=1,
    split_pages=0,
    huge_bytes=0,
    run=1,
    pages_to_scan=100,
    sleep_millisecs=20,
    smart_scan=1,
)
FIGURES = Figures(
    seconds_50=1.0,
    seconds_90=2.0,
    seconds_95=float("inf"),
    cpu_50=0.5,
    cpu_90=1.0,
    cpu_95=float("inf"),
    passes_95=float("inf"),
    share_after_3_passes=None,
    area=0.5,
    saved_share=0.9,
    steady_cpu=0.01,
    ksmd_cpu_seconds=2.0,
    guests_seconds=0.1,
    reaction_seconds=None,
    loss_passes=0,
    least_available_bytes=MIB,
    own_cpu_seconds=None,
    own_resident_bytes=None,
    restored=None,
    harm=None,
)
RUN = Run(load="storm", manager="nothing", turn=1, strangers=(), figures=FIGURES, samples=[SAMPLE])


def samples(*saved: int, possible: int = 100) -> list[Sample]:
    """Samples of every second, in which ksmd takes half a core and ends a pass."""
    return [
        replace(
            SAMPLE,
            seconds=second,
            saved_bytes=count,
            possible_bytes=possible,
            ksmd_cpu_seconds=second / 2,
            passes=second,
        )
        for second, count in enumerate(saved)
    ]


SERIES = st.lists(st.integers(0, 100), min_size=2, max_size=20).map(lambda saved: samples(*saved))


def test_a_share_is_reached_at_the_first_sample_that_has_it() -> None:
    seen = samples(0, 40, 95, 100)
    assert measures.reached(seen, 0.5) == measures.Reached(seconds=2, ksmd_cpu_seconds=1.0, passes=2)
    assert measures.reached(seen[:2], 0.5) == measures.Reached()


def test_nothing_is_reached_where_there_is_nothing_to_merge() -> None:
    assert measures.reached(samples(0, 0, possible=0), 0.5) == measures.Reached()
    assert measures.area(samples(0, 0, possible=0)) is None
    assert measures.saved_share(samples(0, 0, possible=0)) is None


@given(seen=SERIES, lower=st.floats(0.01, 1), higher=st.floats(0.01, 1))
def test_a_larger_share_is_never_reached_sooner(seen: Sequence[Sample], lower: float, higher: float) -> None:
    lower, higher = sorted((lower, higher))
    assert measures.reached(seen, lower).seconds <= measures.reached(seen, higher).seconds


@given(seen=SERIES)
def test_the_area_is_a_share(seen: Sequence[Sample]) -> None:
    area = measures.area(seen)
    assert area is not None
    assert 0 <= area <= 1


def test_the_area_is_what_was_saved_of_what_could_be() -> None:
    assert measures.area(samples(0, 50, 100, 100)) == pytest.approx(0.5)


def test_savings_beyond_the_possible_do_not_count() -> None:
    assert measures.area(samples(0, 500, 500)) == pytest.approx(0.5)


def test_steady_is_the_last_quarter() -> None:
    seen = samples(*[0] * 9)
    busy_at_first = [replace(sample, ksmd_cpu_seconds=min(sample.seconds, 6.0)) for sample in seen]
    assert measures.steady_cpu_share(seen) == pytest.approx(0.5)
    assert measures.steady_cpu_share(busy_at_first) == 0


def test_whole_passes_count_from_when_all_guests_were_there() -> None:
    seen = samples(0, 10, 20, 30, 40, 50, 60)
    late = [replace(sample, guests=2 if sample.passes >= 2 else 1) for sample in seen]
    assert measures.share_after_passes(late, guests=2, passes=3) == pytest.approx(0.6)
    assert measures.share_after_passes(late, guests=2, passes=4) is None
    assert measures.share_after_passes(late, guests=3, passes=1) is None


def test_only_passes_in_a_row_count_as_loss() -> None:
    profits = [0, -1, -1, 1, -1]
    seen = [replace(sample, profit_bytes=profit) for sample, profit in zip(samples(*[0] * 5), profits, strict=True)]
    assert measures.passes_at_a_loss(seen, 0) == 2
    filling = [replace(sample, guests=int(number > 1)) for number, sample in enumerate(seen)]
    assert measures.passes_at_a_loss(filling, 1) == 1


def test_every_manager_has_every_load_once_a_turn_and_each_turn_begins_with_another() -> None:
    plan = list(planned(["storm", "idle"], ["a", "b", "c"], turns=2))
    assert len(set(plan)) == len(plan) == 12
    assert [run.manager for run in plan if run.load == "storm"] == ["a", "b", "c", "b", "c", "a"]


def test_the_estimate_is_more_than_the_runs_themselves() -> None:
    args = parse_arguments(["--loads=all", "--managers=nothing,ksmd-defaults", "--seconds=10"])
    plan = list(planned(args.loads, args.managers, args.turns))
    assert len(plan) == 2 * len(LOADS)
    assert estimated_seconds(plan, size_of(args)) > 10 * len(plan)


@pytest.mark.parametrize("word", ["--loads=storm,pony", "--managers=pony", "--managers=no-such-file.toml"])
def test_what_nobody_knows_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_arguments([word])
    assert "pony" in (said := capsys.readouterr().err) or "no-such-file" in said


def test_a_file_is_a_manager(tmp_path: Path) -> None:
    path = tmp_path / "tuned.toml"
    path.write_text('adaptive.profile = "eager"\n')
    assert parse_arguments([f"--managers={path}"]).managers == [str(path)]


def test_all_our_policies_and_profiles_are_rows() -> None:
    ours = {name for name in MANAGERS if name.startswith("ours-")}
    assert ours >= {
        "ours-adaptive-quiet",
        "ours-adaptive-balanced",
        "ours-adaptive-eager",
        "ours-fixed",
        "ours-ksmtuned",
    }


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "-"),
        ([None, None], "-"),
        ([1.0], "1.0"),
        ([1.0, 2.0, 9.0], "2.0 (1.0 to 9.0)"),
        ([1.0, float("inf"), float("inf")], "never (1.0 to never)"),
        ([True, True], "yes"),
        ([True, False], "no"),
    ],
)
def test_a_cell_is_the_median_with_its_spread(values: list[float | None], text: str) -> None:
    assert tables.middle(values, 1) == text


def test_the_table_has_a_row_for_each_manager() -> None:
    text = tables.as_markdown([RUN, replace(RUN, manager="other"), replace(RUN, manager="other", turn=2)])
    assert text.count("| nothing |") == text.count("| other |") == 2
    assert "storm (2 turns)" in text


def test_what_was_never_reached_is_null_in_json() -> None:
    figures = json.loads(tables.as_json({"cpu": "one"}, [RUN]))["runs"][0]["figures"]
    assert (figures["seconds_50"], figures["seconds_95"]) == (1.0, None)


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    plot = pytest.importorskip("bench.plot", exc_type=ModuleNotFoundError)
    plot.draw("storm", [replace(RUN, samples=samples(0, 50, 100))], tmp_path / "storm.svg")
    assert "</svg>" in (tmp_path / "storm.svg").read_text()


def test_a_guest_is_taken_for_qemu() -> None:
    with Guest("mine", Mix(unique_bytes=MIB)) as child:
        child.wait_ready()
        assert Door().read(f"proc/{child.pid}/comm") == "qemu-system-x86\n"
        found = {guest.pid: guest for guest in GuestFinder(Door()).find(0)}
        assert (found[child.pid].kind, found[child.pid].name) == ("qemu", "mine")
        pattern = ["pgrep", "-f", "^qemu-system.*-enable-kvm"]  # Debian's ksmtuned
        assert str(child.pid) in subprocess.run(pattern, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


@pytest.mark.parametrize("as_guest", [True, False])
def test_ballast_takes_its_memory_and_gives_it_back(as_guest: bool) -> None:
    with Ballast(2 * STEP_BYTES, as_guest=as_guest) as ballast:
        process = psutil.Process(ballast.wait_taken().pid)
        assert process.memory_info().rss > 2 * STEP_BYTES
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "1000\n"
    assert not process.is_running()


@pytest.mark.kernel
def test_the_arena_runs_and_writes_what_it_saw(tmp_path: Path) -> None:
    need_real_ksm()
    names = "nothing,ksmd-full-speed,ours-adaptive-eager"
    subprocess.run([*ARENA, f"--managers={names}", "--seconds=3", "--rounds=1", f"--out={tmp_path}"], check=True)
    runs = json.loads((tmp_path / "arena.json").read_text())["runs"]
    figures = {run["manager"]: run["figures"] for run in runs}
    assert list(figures) == names.split(",")
    assert figures["nothing"]["ksmd_cpu_seconds"] == 0
    assert figures["ksmd-full-speed"]["saved_share"] > 0
    assert figures["ours-adaptive-eager"]["restored"] is True
    assert figures["ours-adaptive-eager"]["own_cpu_seconds"] > 0


@pytest.mark.kernel
def test_a_stopped_arena_leaves_nothing(tmp_path: Path) -> None:
    need_real_ksm()
    with Program([*ARENA, "--managers=ours-adaptive-eager", "--seconds=60", f"--out={tmp_path}"], tmp_path) as arena:
        process = psutil.Process(arena.pid)
        begun = wait_for(lambda: process.children(recursive=True), LOCK_SECONDS, "start of the first run")
        assert arena.end(signal.SIGTERM, seconds=60) == 0
        assert [child for child in begun if child.is_running()] == []
