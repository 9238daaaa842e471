"""Whole ticks, with all that is told of them, work on made-up and captured hosts of every shape."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ksmtuned_py.config import Config
from ksmtuned_py.daemon.machine import Machine, open_machine
from ksmtuned_py.door import Door
from ksmtuned_py.model import KSM_DIRECTORY, Mode, WriteStatus
from ksmtuned_py.plan import STRUCTURAL, plan
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.publish.metrics import Metrics
from ksmtuned_py.publish.statusfile import parse, status_json, status_of
from ksmtuned_py.publish.totals import Totals
from ksmtuned_py.report import Report
from ksmtuned_py.tick import tick
from ksmtuned_py.units import GIB, KIB
from tests.support.trees import KERNELS, captured_tree, make_fake_tree, meminfo, put

Sections = Mapping[str, Mapping[str, Any]]
ARCSTATS = "c_min 4 1073741824\nsize 4 3221225472\n"
SHAPES: dict[str, dict[str, Any]] = {
    "a kernel without PSI": {"files": {"proc/pressure/memory": None}},
    "a kernel without NUMA": {"merge_across_nodes": None},
    "a host with swap": {"files": {"proc/meminfo": meminfo(SwapTotal=4 * GIB // KIB, SwapFree=GIB // KIB)}},
    "a host with ZFS": {"files": {"proc/spl/kstat/zfs/arcstats": ARCSTATS}},
    "a host with huge pages": {"files": {"proc/meminfo": meminfo(Hugetlb=8 * GIB // KIB)}},
    "a host without vmstat": {"files": {"proc/vmstat": None}},
    "a ksmd that cannot be seen": {"files": {"proc/42/comm": None, "proc/42/schedstat": None}},
    "a host without guests": {"guests": ()},
    "a host short of memory": {"files": {"proc/meminfo": meminfo(available_bytes=GIB // 4)}},
    "a kernel of 2022 without NUMA and PSI": {
        "kernel": "6.1",
        "merge_across_nodes": None,
        "files": {"proc/pressure/memory": None},
    },
    "an account that makes no sense": {"files": {"proc/1001/ksm_stat": "ksm_rmap_items many\n"}},
    "merging that costs more than it saves": {"general_profit": -(2**30), "pages_volatile": 2**24},
    "a guest that ends": {"files": {"proc/1001/stat": None, "proc/1001/statm": None}},
}
ODD_NAME = b"qemu-kvm\0-name\0guest=vm \xff,,\n{}[b]%s\0"
TREES = (*(f"a fake {kernel}" for kernel in KERNELS), *(f"a captured {kernel}" for kernel in KERNELS), *SHAPES, "odd")
POLICIES: dict[str, Sections] = {
    name: {"policy": {"name": name}, "ksmtuned": {"monitor_interval_seconds": 0.001}}
    for name in ("adaptive", "fixed", "ksmtuned")
}


def shaped(shape: dict[str, Any], directory: Path) -> Path:
    """Make a fake tree, with guests whose files are as the shape says."""
    make_fake_tree(directory, **shape)
    for path, text in shape.get("files", {}).items():
        put(directory, path, text)
    return directory


def ticks(machine: Machine, config: Config, count: int = 4) -> list[Report]:
    """The reports of so many ticks in a row."""
    reports, trend = [], Trend.begin(config)
    for _ in range(count):
        reports.append(tick(machine.host, config, trend))
        trend = reports[-1].trend
    return reports


def content(root: Path) -> dict[Path, bytes]:
    """Every file with its text."""
    return {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}


@pytest.fixture(params=TREES)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The root of each tree in turn."""
    name: str = request.param
    for kernel in KERNELS:
        if name.endswith(kernel):
            return captured_tree(kernel, tmp_path) if "captured" in name else make_fake_tree(tmp_path, kernel=kernel)
    root = shaped(SHAPES.get(name, {}), tmp_path)
    if name == "odd":
        (root / "proc/1001/cmdline").write_bytes(ODD_NAME)
    return root


@pytest.mark.parametrize("sections", POLICIES.values(), ids=POLICIES)
def test_every_write_is_taken_and_the_knobs_are_then_as_decided(root: Path, sections: Sections) -> None:
    config = Config.model_validate(sections)
    door = Door(str(root))
    with open_machine(door, config) as machine:
        files = {file.name for file in (root / KSM_DIRECTORY).iterdir()}
        for report in ticks(machine, config):
            assert {result.status for result in report.outcome.results} <= {WriteStatus.OK}
        assert plan(machine.host.backend.knobs(), report.decision.knobs) == ()
    written = {Path(write.path).name for write in door.log}
    assert all(write.path.startswith(f"{root}/{KSM_DIRECTORY}/") for write in door.log)
    assert written <= files - STRUCTURAL


@pytest.mark.parametrize("sections", POLICIES.values(), ids=POLICIES)
def test_who_only_watches_changes_no_file(root: Path, sections: Sections) -> None:
    config = Config.model_validate({**sections, "daemon": {"mode": "observe"}})
    before = content(root)
    with open_machine(Door(str(root)), config) as machine:
        reports = ticks(machine, config)
    assert content(root) == before
    assert {result.status for report in reports for result in report.outcome.results} <= {WriteStatus.DRY}


def test_every_surface_can_tell_of_it(root: Path) -> None:
    config, totals, metrics = Config(), Totals(), Metrics()
    with open_machine(Door(str(root)), config) as machine:
        for report in ticks(machine, config):
            totals = totals.after(report)
    metrics.publish(report, totals)
    assert f'ksmtuned_mode{{mode="{report.decision.mode}"}} 1.0' in metrics.exposition().decode()
    status = status_of(report, totals)
    assert parse("status", status_json(status)).decision == status.decision


def decided(tmp_path: Path, shape: dict[str, Any]) -> Report:
    """The report of the default policy's first tick on a host of that shape."""
    with open_machine(Door(str(shaped(shape, tmp_path))), Config()) as machine:
        return ticks(machine, Config(), 1)[0]


def test_what_makes_no_sense_in_one_account_is_told_and_harms_nothing_else(tmp_path: Path) -> None:
    report = decided(tmp_path, SHAPES["an account that makes no sense"])
    assert [problem.partition(": ")[2][:20] for problem in report.snapshot.problems] == ["wanted a decimal num"]
    assert [guest.ksm is None for guest in report.snapshot.guests] == [True, False, False]


def test_zfs_and_huge_pages_count(tmp_path: Path) -> None:
    arc = decided(tmp_path / "arc", SHAPES["a host with ZFS"]).snapshot.memory
    assert arc.headroom_bytes == arc.available_bytes + 2 * GIB
    huge = decided(tmp_path / "huge", SHAPES["a host with huge pages"]).snapshot.memory
    assert (huge.base_bytes, huge.total_bytes) == (8 * GIB, 16 * GIB)


def test_a_host_without_guests_is_left_alone(tmp_path: Path) -> None:
    report = decided(tmp_path, SHAPES["a host without guests"])
    assert (report.decision.mode, report.decision.rule, report.decision.knobs.run) == (Mode.OFF, "no_guests", 0)


def test_guests_are_boosted_for_on_every_kernel(tmp_path: Path) -> None:
    for kernel in KERNELS:
        report = decided(tmp_path / kernel, {"kernel": kernel, "pages_unshared": 1000})  # which may be old
        assert (report.decision.mode, report.decision.rule) == (Mode.BOOST, "news")
        assert (kernel == "6.1") == ("smart_scan" not in {result.write.knob for result in report.outcome.results})
