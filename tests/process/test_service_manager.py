"""A service manager hears the right words from the real process, on a socket of our own."""

import signal
import time
from pathlib import Path

from tests.support.daemon import EVENTS_ONLY, QUIET, Daemon, merged, service_manager
from tests.support.process import wait_for
from tests.support.trees import KSM, put

TENTH = merged(QUIET, {"daemon": {"tick_seconds": 0.1, "idle_tick_seconds": 0.1}})


def test_ready_comes_first_and_before_any_knob_is_written(root: Path, tmp_path: Path) -> None:
    with (
        service_manager(tmp_path) as manager,
        Daemon(tmp_path / "daemon", EVENTS_ONLY, root=root, environment=manager.environment) as daemon,
    ):
        heard = manager.wait("WATCHDOG=1")
        assert heard[0] == "READY=1"
        assert heard[1].startswith("STATUS=boost: 0 B saved")
        assert heard[2:] == ["WATCHDOG=1"]
        assert daemon.end() == 0
        assert manager.heard()[-1] == "STOPPING=1"


def test_a_service_that_cannot_start_is_never_ready(root: Path, tmp_path: Path) -> None:
    put(root, f"{KSM}/pages_sharing", "garbage\n")
    with (
        service_manager(tmp_path) as manager,
        Daemon(tmp_path / "daemon", root=root, environment=manager.environment) as daemon,
    ):
        assert daemon.wait() == 2
        assert manager.heard() == []


def test_every_tick_feeds_the_watchdog_and_comes_often_enough(root: Path, tmp_path: Path) -> None:
    with (
        service_manager(tmp_path, WATCHDOG_USEC="200000") as manager,  # so every 0.1 s, although 600 are configured
        Daemon(tmp_path / "daemon", EVENTS_ONLY, root=root, environment=manager.environment) as daemon,
    ):
        wait_for(lambda: manager.heard().count("WATCHDOG=1") >= 5, 20, "five feeds")
        assert daemon.end() == 0
        heard = manager.heard()
        assert heard.count("WATCHDOG=1") == sum(message.startswith("STATUS=") for message in heard)


def test_failed_ticks_starve_the_watchdog(root: Path, tmp_path: Path) -> None:
    with (
        service_manager(tmp_path) as manager,
        Daemon(tmp_path / "daemon", TENTH, root=root, environment=manager.environment) as daemon,
    ):
        manager.wait("WATCHDOG=1")
        put(root, f"{KSM}/pages_sharing", "garbage\n")
        daemon.wait_output("tick failed: Garbage")
        fed = manager.heard().count("WATCHDOG=1")
        time.sleep(0.2)  # at least one more tick that fails
        assert manager.heard().count("WATCHDOG=1") == fed
        put(root, f"{KSM}/pages_sharing", "5\n")
        wait_for(lambda: manager.heard().count("WATCHDOG=1") > fed, 20, "another feed")
        assert daemon.end() == 0


def test_a_reload_is_told_with_its_time(root: Path, tmp_path: Path) -> None:
    with (
        service_manager(tmp_path) as manager,
        Daemon(tmp_path / "daemon", EVENTS_ONLY, root=root, environment=manager.environment) as daemon,
    ):
        manager.wait("WATCHDOG=1")
        for good in (True, False):
            before, begun = len(manager.heard()), time.monotonic_ns() // 1000
            daemon.config.write_text(daemon.config.read_text() if good else "[bad]\n")
            daemon.process.send_signal(signal.SIGHUP)
            wait_for(lambda: "WATCHDOG=1" in manager.heard()[before:], 20, "its tick")  # noqa: B023 - called at once
            heard = manager.heard()[before:]
            reloading = dict(line.split("=") for line in heard[0].splitlines())
            assert reloading.keys() == {"RELOADING", "MONOTONIC_USEC"}
            assert begun <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            assert heard[1] == "READY=1"
