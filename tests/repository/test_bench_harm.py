"""The bench's guests have the memory that it says, and what merging costs them is computed as it says."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import tables
from bench.arena import parse_arguments
from bench.ballast import STEP_BYTES
from bench.contents import HUGE_BYTES, RUN_PAGES, GuestMemory, Layout, figure_of, pages_in_order
from bench.guests import WorkingGuest
from bench.harm import Harm, harm_of, speed_at_end
from bench.qemuguests import largest_mapping, rounds_per_second
from bench.stage import Size, Stage
from ksmtuned_py.cli.workload import PAGE_BYTES, Mix
from ksmtuned_py.door import Door
from ksmtuned_py.sensors.memory import read_memory
from ksmtuned_py.units import GIB, MIB
from tests.repository.test_bench import FIGURES, RUN, samples
from tests.support.ksmlock import RealKsm, need_real_ksm
from tests.support.need import need
from tests.support.process import wait_for

MIX = Mix(equal_bytes=MIB, zero_bytes=MIB, unique_bytes=MIB, changing_bytes=MIB, seed=7)
SMAPS = """\
7f0000000000-7f0000400000 rw-p 00000000 00:00 0
Size:               4096 kB
Rss:                2100 kB
AnonHugePages:      2048 kB
VmFlags: rd wr mr mw me ac mg
7f0000400000-7f0000600000 rw-p 00000000 00:00 0 [heap]
Rss:                  12 kB
AnonHugePages:         0 kB
"""
REPORT = {
    "memory_bytes": 10 * HUGE_BYTES,
    "huge_bytes": 4 * HUGE_BYTES,
    "reads_per_second": 1e6,
    "cpu_share": 1.5,
    "waited_share": 0.25,
}
HARM = Harm(
    huge_share=0.4,
    split_pages=6,
    splits_per_gib=None,
    saved_bytes=0,
    speed=None,
    reads_per_second=1e6,
    cpu_share=1.5,
    waited_share=0.25,
    saved_at_need=None,
    first_huge_share=0.4,
    back_seconds=None,
    waits={"read": [0.5, 1.5, 9.5]},
)

# Contents.


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(0, 9))
def test_sparse_is_a_shuffle_of_runs_of_four_pages(runs: int, seed: int) -> None:
    order = pages_in_order(runs * RUN_PAGES, "sparse", seed)
    assert sorted(order.tolist()) == pages_in_order(runs * RUN_PAGES, "dense", seed).tolist()
    assert all((run - run[0]).tolist() == [0, 1, 2, 3] and run[0] % RUN_PAGES == 0 for run in order.reshape(-1, 4))


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_two_guests_have_in_common_what_the_mix_says(layout: Layout) -> None:
    one, other = GuestMemory("one", MIX, layout), GuestMemory("other", MIX, layout)
    assert np.array_equal(one.pages[one.equal], other.pages[other.equal])
    assert not one.pages[one.zero].any()
    both = [page.tobytes() for memory in (one, other) for page in memory.pages]
    per_guest = MIB // PAGE_BYTES
    assert len(set(both)) == 2 * len(one.pages) - per_guest - (2 * per_guest - 1), "equal once, and one page of zeros"


def test_what_is_spoiled_or_rewritten_is_equal_to_nothing() -> None:
    memory = GuestMemory("one", MIX, "dense")
    before = memory.pages.copy()
    assert memory.spoil(10) == 10
    memory.rewrite(3 * len(memory.changing))
    changed = np.flatnonzero((memory.pages != before).any(axis=1))
    assert changed.tolist() == sorted([*memory.equal[:10].tolist(), *memory.changing.tolist()])
    assert len({page.tobytes() for page in memory.pages[changed]}) == len(changed)
    assert memory.spoil(10**6) == len(memory.equal) - 10


def test_a_figure_is_that_of_the_mapping_with_the_address() -> None:
    assert figure_of(SMAPS, 0x7F0000001000, "AnonHugePages") == HUGE_BYTES
    assert figure_of(SMAPS, 0x7F0000400000, "Rss") == 12 * 1024
    assert figure_of(SMAPS, 0x10, "Rss") == 0


def test_a_guests_ram_is_its_largest_mapping() -> None:
    assert largest_mapping(SMAPS) == 0x7F0000000000
    assert largest_mapping("") == 0


def test_rounds_are_counted_by_the_guests_own_clock() -> None:
    assert rounds_per_second("round 10.00\nround 14.50\nnoise\nround 18.00\n") == 0.25
    assert rounds_per_second("the guest is up\nround 10.00\n") == 0


# Harm.


def test_harm_is_that_of_all_guests_and_the_speed_that_of_the_first() -> None:
    seen = [replace(sample, split_pages=sample.passes) for sample in samples(0, GIB // 2, GIB, possible=GIB)]
    first = REPORT | {"speeds": [0.5] * 30 + [0.8] * 10, "waits": {"read": [1.0, 2.0, 3.0]}}
    harm = harm_of(seen, [first, REPORT], short_seconds=1.0, relief_seconds=None)
    assert harm is not None
    assert (harm.huge_share, harm.split_pages, harm.splits_per_gib) == (0.4, 2, 2.0)
    assert (harm.speed, harm.reads_per_second, harm.waited_share) == (0.8, 2e6, 0.5)
    assert (harm.saved_at_need, harm.waits["read"][2]) == (0.5, 3.0)


def test_what_was_not_measured_is_not_told() -> None:
    assert harm_of(samples(0, 1), [], None, None) is None
    harm = harm_of(samples(0, 0), [REPORT], None, None)
    assert harm is not None
    assert harm.speed is harm.splits_per_gib is harm.saved_at_need is None


def test_huge_pages_are_back_when_nearly_all_that_came_are_there() -> None:
    seen = [
        replace(sample, huge_bytes=size)
        for sample, size in zip(samples(*[0] * 9), (900, 900, 900, 900, 100, 140, 190, 196, 200), strict=True)
    ]
    harm = harm_of(seen, [REPORT], short_seconds=1.0, relief_seconds=2.0)  # which is all gone by the fourth second
    assert harm is not None
    assert harm.back_seconds == 5.0
    none_came = harm_of(seen, [REPORT], short_seconds=1.0, relief_seconds=6.5)
    assert none_came is not None
    assert none_came.back_seconds is None


@given(st.lists(st.floats(0.1, 2), min_size=1, max_size=60))
def test_a_speed_at_the_end_is_one_of_the_last(speeds: list[float]) -> None:
    assert min(speeds) <= (speed_at_end(speeds) or 0) <= max(speeds)
    assert speed_at_end([9.0] * 100 + [1.0] * 34) == 1.0


def test_tables_of_guests_with_huge_pages_have_their_harm() -> None:
    text = tables.as_markdown([replace(RUN, figures=replace(FIGURES, harm=HARM))])
    assert "| nothing | 40.0 | 40.0 | - | 6 | - | 0 | - | 1.00 | 150.0 | 25.0 | - |" in text
    assert "| nothing | - | - | - | 0.5 | 1.5 | 9.5 | - | - | - |" in text
    assert "huge pages" not in tables.as_markdown([RUN])


def test_small_pages_have_no_harm_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_arguments(["--small-pages", "--loads=storm,relief"]).small_pages
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(["--small-pages", "--loads=storm,harm-dense@40"])
    assert "huge pages" in capsys.readouterr().err


# Processes.


def test_a_guest_at_work_tells_what_it_is_like() -> None:
    with WorkingGuest("mine", MIX, layout="sparse", task="calm") as guest:
        guest.wait_ready().go()
        assert guest.freed_bytes() <= MIB, "the zero pages, if somebody merges now"
        assert guest.spoil(5) == 5
        report = guest.report(1)
    assert guest.freed_bytes() == 0, "who has ended tells nothing"
    assert report is not None
    assert report["memory_bytes"] == 4 * MIB >= report["huge_bytes"]
    assert len(report["speeds"]) == 1
    assert set(report["waits"]) == {"first_write", "read", "timer"}


def test_a_probe_measures_all_the_time() -> None:
    with WorkingGuest("mine", MIX, layout="dense", task="probe") as guest:
        guest.wait_ready().go()
        wait_for(lambda: len((guest.report(0) or {})["speeds"]) >= 2, 60, "two rounds")


def test_the_moment_at_which_memory_is_short_is_noted() -> None:
    need_real_ksm()
    size = Size(guests=1, guest_bytes=MIB, seconds=60, cap_bytes=0)
    with Stage(RealKsm(), size) as stage:
        stage.begin()
        with stage.short(read_memory(Door()).available_bytes - STEP_BYTES, bytes_per_second=GIB):
            assert 0 < (stage.short_seconds or 0) < 60


@pytest.mark.kernel
def test_the_arena_sees_huge_pages_split(tmp_path: Path) -> None:
    need_real_ksm()
    need("[never]" not in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(), "huge pages")
    words = [
        "--loads=harm-sparse",
        "--managers=nothing,ksmd-full-speed",
        "--seconds=6",
        "--rounds=1",
        f"--out={tmp_path}",
    ]
    arena = [sys.executable, "-m", "bench.arena", "--guests=2", "--guest-mib=64", *words]
    subprocess.run(arena, check=True)
    runs = json.loads((tmp_path / "arena.json").read_text())["runs"]
    harm = {run["manager"]: run["figures"]["harm"] for run in runs}
    assert harm["nothing"]["huge_share"] == 1
    assert harm["ksmd-full-speed"]["huge_share"] < harm["nothing"]["huge_share"]
    assert harm["ksmd-full-speed"]["split_pages"] > 0
    assert harm["ksmd-full-speed"]["speed"] > 0
