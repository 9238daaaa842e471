"""On the real kernel all that can be merged is merged, and afterwards every knob is as before."""

import signal
from pathlib import Path

import pytest

from ksmtuned_py.cli.workload import Mix, Workload, achievable_pages, workloads
from ksmtuned_py.units import MIB
from tests.kernel.conftest import MIXES, Start
from tests.support.daemon import MEMORY_FIRST, QUIET, Daemon, free_port, merged, scrape, verb
from tests.support.ksmlock import RealKsm, knobs
from tests.support.process import wait_for

pytestmark = pytest.mark.kernel

MERGED_SHARE = 0.95
FAST = merged(QUIET, MEMORY_FIRST, {"daemon": {"tick_seconds": 0.1, "idle_tick_seconds": 0.1}})
OLD_PASSES = 25
"""The passes after which smart_scan skips a page eight times out of nine."""
ODD = {"pages_to_scan": 777, "sleep_millisecs": 33, "advisor_max_cpu": 33, "advisor_mode": "scan-time"}
"""Knobs as some admin may have them. After the last is written, the first cannot be written any more."""


@pytest.fixture
def odd_knobs(real_ksm: RealKsm) -> dict[str, str]:
    """Set the knobs to odd values before the daemon starts, with the kernel's advisor on, and return all of them."""
    for name, value in ODD.items():
        real_ksm.write(name, value)
    return knobs()


def wait_merged(ksm: RealKsm) -> None:
    """Wait until nearly all is merged."""
    ksm.wait_saved(round(MERGED_SHARE * achievable_pages(MIXES)), 60)


def test_what_can_be_merged_is_merged_and_reads_as_before(
    real_ksm: RealKsm, guests: list[Workload], odd_knobs: dict[str, str], start: Start
) -> None:
    port = free_port()
    daemon = start(merged(FAST, {"metrics": {"address": f"127.0.0.1:{port}"}}))
    daemon.wait_status(lambda status: status["decision"]["mode"] == "boost", "the boost")
    assert real_ksm.read("advisor_mode") == "[none] scan-time"
    assert real_ksm.read("smart_scan") == "1"  # no page is old yet
    wait_merged(real_ksm)
    daemon.wait_status(lambda status: status["decision"]["mode"] in ("cruise", "rest"), "the end of the boost", 60)
    assert (real_ksm.read("smart_scan"), real_ksm.read("run")) == ("1", "1")
    seen = scrape(port)
    assert seen["ksmtuned_saved_bytes"] >= MERGED_SHARE * achievable_pages(MIXES) * 4096
    assert seen["ksmtuned_scanner_cpu_seconds_total"] > 0
    assert [guest.wrong_pages() for guest in guests] == [0, 0, 0]
    assert {f"load-{number}" for number in (1, 2, 3)} <= {g["name"] for g in daemon.status()["snapshot"]["guests"]}
    assert daemon.end() == 0
    assert knobs() == odd_knobs
    wait_merged(real_ksm)  # restoring run=0 stops ksmd and keeps what is merged


def test_a_late_twin_of_pages_that_are_skipped_by_now_is_merged(real_ksm: RealKsm, start: Start) -> None:
    twin = Mix(equal_bytes=32 * MIB, zero_bytes=8 * MIB)  # with none of these the daemon would give up
    with workloads([twin]):
        for name, value in {"smart_scan": 1, "pages_to_scan": 100_000, "sleep_millisecs": 1, "run": 1}.items():
            real_ksm.write(name, value)
        old = real_ksm.number("full_scans") + OLD_PASSES
        wait_for(lambda: real_ksm.number("full_scans") >= old, 60, "pages that are old")
        daemon = start(FAST)
        daemon.wait_status(lambda status: status["decision"]["mode"] in ("cruise", "rest"), "the end of the boost", 60)
        assert real_ksm.read("smart_scan") == "1"
        with workloads([twin]):
            real_ksm.wait_saved(round(0.99 * achievable_pages([twin] * 2)), 60)
            wait_for(lambda: daemon.output().count("smart_scan 1 -> 0") == 2, 20, "word of a second thorough boost")


def test_a_twin_that_comes_soon_is_merged(real_ksm: RealKsm, start: Start) -> None:
    """smart_scan has skipped nothing up to then, as far as the daemon has seen, and is about to."""
    twin = Mix(equal_bytes=32 * MIB, zero_bytes=8 * MIB)
    daemon = start(FAST)
    with workloads([twin]):
        daemon.wait_status(lambda status: status["decision"]["mode"] in ("cruise", "rest"), "the end of the boost", 60)
        with workloads([twin]):
            real_ksm.wait_saved(round(0.99 * achievable_pages([twin] * 2)), 60)
    assert daemon.end() == 0


def test_a_killed_daemon_leaves_a_debt_that_restore_pays(
    real_ksm: RealKsm, guests: list[Workload], odd_knobs: dict[str, str], start: Start
) -> None:
    daemon = start(FAST)
    wait_merged(real_ksm)
    daemon.end(signal.SIGKILL)
    assert knobs() != odd_knobs
    assert verb("restore", "--runtime-dir", daemon.runtime).stdout.startswith("put back: run=0, ")
    assert knobs() == odd_knobs


def test_a_killed_daemon_leaves_a_debt_that_the_next_one_pays(
    real_ksm: RealKsm, guests: list[Workload], odd_knobs: dict[str, str], start: Start
) -> None:
    start(FAST).end(signal.SIGKILL)
    second = start(FAST)
    wait_merged(real_ksm)
    assert second.end(signal.SIGINT) == 0
    assert knobs() == odd_knobs


def test_one_tick_and_a_mere_look_leave_every_knob(
    real_ksm: RealKsm, guests: list[Workload], odd_knobs: dict[str, str], tmp_path: Path
) -> None:
    with Daemon(tmp_path / "look", FAST, "--dry-run") as look:
        look.wait_output("dry")
        assert knobs() == odd_knobs
        assert look.end() == 0
    done = verb("run", "--once", "--config", look.config, "--runtime-dir", look.runtime)
    assert done.returncode == 0
    assert "advisor_mode scan-time -> none; pages_to_scan 100 -> " in done.stderr
    assert knobs() == odd_knobs


def test_stop_and_keep(real_ksm: RealKsm, guests: list[Workload], start: Start) -> None:
    def ended(on_exit: str) -> Daemon:
        daemon = start(merged(FAST, {"daemon": {"on_exit": on_exit}}), name=on_exit)
        wait_merged(real_ksm)
        assert daemon.end() == 0
        return daemon

    ended("keep")
    assert (real_ksm.read("run"), real_ksm.read("pages_to_scan") == "100") == ("1", False)
    ended("stop")
    assert real_ksm.read("run") == "0"
    wait_merged(real_ksm)


def test_unmerge_gives_everything_back_zero_pages_too(real_ksm: RealKsm, guests: list[Workload], start: Start) -> None:
    daemon = start(merged(FAST, {"daemon": {"on_exit": "unmerge"}, "kernel": {"use_zero_pages": 1}}))
    real_ksm.wait_saved(round(MERGED_SHARE * achievable_pages(MIXES, use_zero_pages=True)), 60)
    assert real_ksm.number("ksm_zero_pages") > 0
    assert daemon.end(seconds=60) == 0
    assert (real_ksm.number("pages_shared"), real_ksm.saved_pages()) == (0, 0)
    assert (real_ksm.read("run"), real_ksm.read("use_zero_pages")) == ("0", "0")
    assert [guest.wrong_pages() for guest in guests] == [0, 0, 0]


def test_run_2_as_it_was_found_is_put_back_behind_giving_everything_back(
    real_ksm: RealKsm, guests: list[Workload], start: Start
) -> None:
    real_ksm.write("run", 2)
    before = knobs()
    daemon = start(FAST)
    real_ksm.wait_saved(100, 60)
    assert daemon.end(seconds=60) == 0
    assert (real_ksm.saved_pages(), knobs()) == (0, before)


def test_somebody_else_who_writes_is_left_alone(real_ksm: RealKsm, guests: list[Workload], start: Start) -> None:
    port = free_port()
    daemon = start(merged(FAST, {"metrics": {"address": f"127.0.0.1:{port}"}}))
    real_ksm.write("pages_to_scan", 1250)
    status = daemon.wait_status(lambda status: status["decision"]["mode"] == "held", "hands off")
    assert "pages_to_scan is 1250 where we wrote " in status["decision"]["reason"]
    assert "somebody else changed pages_to_scan from our " in daemon.output()
    daemon.wait_ticks(5)
    assert real_ksm.read("pages_to_scan") == "1250"
    assert scrape(port)['ksmtuned_foreign_writes_total{knob="pages_to_scan"}'] == 1
    assert daemon.end() == 0
