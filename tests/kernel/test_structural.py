"""Structural knobs are changed at the start where the host has the room, and put back at exit."""

import signal
from pathlib import Path

import pytest

from ksmtuned_py.cli.workload import Workload, achievable_pages
from ksmtuned_py.units import GIB
from tests.kernel.conftest import MIXES, Start
from tests.kernel.test_merging import FAST, MERGED_SHARE
from tests.support.daemon import Daemon, Sections, merged, service_manager, verb
from tests.support.ksmlock import RealKsm, knobs
from tests.support.need import need
from tests.support.process import wait_for
from tests.support.trees import make_fake_tree, meminfo

pytestmark = pytest.mark.kernel

FEW = 20
ASKED: Sections = {"kernel": {"merge_across_nodes": 0, "max_page_sharing": FEW, "use_zero_pages": 1}}


@pytest.fixture
def merged_before(real_ksm: RealKsm, guests: list[Workload]) -> dict[str, str]:
    """Merge all there is and stop ksmd, as somebody before us might have; returns the knobs."""
    need("merge_across_nodes" in knobs(), "a kernel with CONFIG_NUMA")
    for name, value in {"smart_scan": 0, "pages_to_scan": 20_000, "sleep_millisecs": 5, "run": 1}.items():
        real_ksm.write(name, value)
    real_ksm.wait_saved(achievable_pages(MIXES), 60)
    real_ksm.write("run", 0)
    return knobs()


@pytest.fixture
def no_room(tmp_path: Path) -> Path:
    """The root of a tree with the real KSM, whose meminfo claims that hardly any memory is left."""
    root = make_fake_tree(tmp_path / "root", files={"proc/meminfo": meminfo(available_bytes=GIB // 4)})
    real, made_up = Path("/sys/kernel/mm/ksm"), root / "sys/kernel/mm/ksm"
    for file in made_up.iterdir():
        file.unlink()
    made_up.rmdir()
    made_up.symlink_to(real)
    return root


def test_changed_at_the_start_and_back_when_nothing_is_merged(
    real_ksm: RealKsm, merged_before: dict[str, str], guests: list[Workload], start: Start
) -> None:
    daemon = start(merged(FAST, ASKED))
    assert {name: int(knobs()[name]) for name in ASKED["kernel"]} == ASKED["kernel"]
    expected = achievable_pages(MIXES, max_page_sharing=FEW, use_zero_pages=True)
    real_ksm.wait_saved(round(MERGED_SHARE * expected), 60)
    assert daemon.end(seconds=60) == 0
    assert "left as they are while pages are merged: " in daemon.output()
    assert knobs() == {**merged_before, "merge_across_nodes": "0", "max_page_sharing": str(FEW)}
    done = verb("unmerge", "--all", "--runtime-dir", daemon.runtime)
    assert done.returncode == 0, done.stderr
    assert knobs() == merged_before
    assert [guest.wrong_pages() for guest in guests] == [0, 0, 0]


def test_a_restart_unmerges_nothing(real_ksm: RealKsm, guests: list[Workload], start: Start) -> None:
    first = start(merged(FAST, ASKED))
    saved = real_ksm.wait_saved(round(MERGED_SHARE * achievable_pages(MIXES, max_page_sharing=FEW)), 60)
    assert first.end(seconds=60) == 0
    assert verb("restore", "--runtime-dir", first.runtime).returncode == 0
    assert real_ksm.saved_pages() > saved * 0.9
    second = Daemon(first.runtime.parent, merged(FAST, ASKED))
    with second:
        second.wait_status(lambda status: status["pid"] == second.pid, "first tick")
        assert real_ksm.saved_pages() > saved * 0.9
        assert "not in force" not in second.output()
        assert second.end(seconds=60) == 0


def test_without_room_they_stay_and_the_reason_is_told(
    real_ksm: RealKsm, merged_before: dict[str, str], start: Start, no_room: Path
) -> None:
    daemon = start(merged(FAST, ASKED), root=no_room)
    said = daemon.wait_output("[kernel] is not in force: max_page_sharing=20 (no room to unmerge: ")
    assert "and the host has 0 B)" in said
    assert (real_ksm.read("merge_across_nodes"), real_ksm.read("max_page_sharing")) == ("1", "256")
    assert real_ksm.read("use_zero_pages") == "1"  # this knob needs no room
    assert real_ksm.saved_pages() >= achievable_pages(MIXES)
    assert daemon.end() == 0
    assert knobs() == merged_before


def test_the_service_manager_is_told_to_wait_while_memory_is_given_back(
    real_ksm: RealKsm, merged_before: dict[str, str], tmp_path: Path
) -> None:
    asked = merged(FAST, ASKED, {"daemon": {"on_exit": "unmerge"}})
    with service_manager(tmp_path) as manager, Daemon(tmp_path / "d", asked, environment=manager.environment) as daemon:
        manager.wait("READY=1")
        starting = manager.heard()[: manager.heard().index("READY=1")]
        assert "EXTEND_TIMEOUT_USEC=60000000" in starting
        assert any(said.startswith("STATUS=") for said in starting)
        wait_for(lambda: (manager.heard(), real_ksm.saved_pages() > 100)[1], 60, "merging")
        daemon.process.send_signal(signal.SIGTERM)
        wait_for(
            lambda: (manager.heard(), daemon.process.poll() is not None)[1], 60, "end"
        )  # a full socket loses words
        assert daemon.wait() == 0
        ending = manager.heard()[manager.heard().index("STOPPING=1") :]
        assert "EXTEND_TIMEOUT_USEC=60000000" in ending
    assert real_ksm.saved_pages() == 0
    assert knobs() == merged_before
