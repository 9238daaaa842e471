"""The fake trees say the same as real kernels did."""

from pathlib import Path
from typing import get_args

import pytest

from ksmtuned_py.config import Config
from ksmtuned_py.config.types import PolicyName
from ksmtuned_py.daemon.machine import open_machine
from ksmtuned_py.door import Door
from ksmtuned_py.model import WriteStatus
from ksmtuned_py.plan import plan
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.tick import tick
from tests.support.trees import KERNELS, FakeGuest, KernelVersion, captured_tree, make_fake_tree

GUEST = FakeGuest(pid=135, name="web")
POLICIES = tuple(name for name in get_args(PolicyName) if name != "advisor")
"""The policies that can run on a captured tree. Nothing in it would answer the advisor policy's '[scan-time]'."""


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> KernelVersion:
    """The version of each captured kernel in turn."""
    version: KernelVersion = request.param
    return version


def names(directory: Path) -> set[str]:
    """The names of the files in a directory."""
    return {file.name for file in directory.iterdir()}


def processes(root: Path, comm: str) -> list[Path]:
    """The directories of the processes of that name."""
    return [file.parent for file in root.glob("proc/*/comm") if file.read_text() == f"{comm}\n"]


def first_words(file: Path) -> list[str]:
    """The first word of each line, which is its name."""
    return [line.split()[0] for line in file.read_text().splitlines()]


def test_a_fake_tree_has_the_knobs_and_counters_of_the_real_one(kernel: KernelVersion, tmp_path: Path) -> None:
    fake, real = make_fake_tree(tmp_path / "fake", kernel=kernel), captured_tree(kernel, tmp_path)
    assert names(fake / "sys/kernel/mm/ksm") == names(real / "sys/kernel/mm/ksm")


@pytest.mark.parametrize("file", ["meminfo", "vmstat", "pressure/memory", "stat"])
def test_a_fake_tree_has_no_line_that_the_real_one_has_not(kernel: KernelVersion, file: str, tmp_path: Path) -> None:
    fake, real = make_fake_tree(tmp_path / "fake", kernel=kernel), captured_tree(kernel, tmp_path)
    lines = set(first_words(fake / "proc" / file))
    assert lines
    assert lines <= set(first_words(real / "proc" / file))


def test_fake_processes_are_like_real_ones(kernel: KernelVersion, tmp_path: Path) -> None:
    fake, real = make_fake_tree(tmp_path / "fake", kernel=kernel, guests=[GUEST]), captured_tree(kernel, tmp_path)
    for comm, count in ("ksmd", 1), ("qemu-system-x86", 2):
        (made,), captured = processes(fake, comm), processes(real, comm)
        assert len(captured) == count
        assert names(made) <= names(captured[0])
        assert len((made / "stat").read_text().split()) == len((captured[0] / "stat").read_text().split())
        assert set(first_words(made / "status")) <= set(first_words(captured[0] / "status"))
    guest, real_guest = processes(fake, "qemu-system-x86")[0], processes(real, "qemu-system-x86")[0]
    assert first_words(guest / "ksm_stat") == first_words(real_guest / "ksm_stat")
    assert len((guest / "statm").read_text().split()) == len((real_guest / "statm").read_text().split())


def test_something_was_merged_when_it_was_captured(kernel: KernelVersion, tmp_path: Path) -> None:
    real = captured_tree(kernel, tmp_path)
    assert int((real / "sys/kernel/mm/ksm/pages_sharing").read_text()) >= 1534
    assert {int((process / "ksm_merging_pages").read_text()) for process in processes(real, "qemu-system-x86")} == {
        1280
    }


def test_it_is_seen_as_it_is(kernel: KernelVersion, tmp_path: Path) -> None:
    root = captured_tree(kernel, tmp_path)
    with open_machine(Door(str(root)), Config()) as machine:
        seen = machine.host.observe()
    assert seen.problems == ()
    assert sorted((guest.name, guest.kind) for guest in seen.guests) == [("db", "qemu"), ("web", "qemu")]
    assert [guest.ksm.rmap_items for guest in seen.guests if guest.ksm] == [1536, 1536]
    assert [guest.ksm.merging_pages for guest in seen.guests if guest.ksm] == [1280, 1280]
    assert dict(seen.knobs.items()).keys() <= names(root / "sys/kernel/mm/ksm")
    assert (seen.knobs.smart_scan is None) == (kernel == "6.1")
    assert seen.counters.pages_sharing >= 1534
    assert seen.profit_bytes > 5_000_000
    assert seen.pressure
    assert seen.vmstat.cow_ksm is not None
    assert seen.scanner_cpu_seconds


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_steers_it(kernel: KernelVersion, policy: str, tmp_path: Path) -> None:
    config = Config.model_validate({"policy": {"name": policy}})
    door = Door(str(captured_tree(kernel, tmp_path)))
    trend = Trend.begin(config)
    with open_machine(door, config) as machine:
        for _ in range(3):
            report = tick(machine.host, config, trend)
            trend = report.trend
            assert {result.status for result in report.outcome.results} <= {WriteStatus.OK}
            assert plan(machine.host.observe().knobs, report.decision.knobs) == ()
    assert {Path(write.path).name for write in door.log} <= names(tmp_path / kernel / "sys/kernel/mm/ksm")
