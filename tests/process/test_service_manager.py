"""A service manager hears the right words from the real process, on a socket of our own."""

import os
import shutil
import signal
import time
from pathlib import Path

from tests.support.daemon import EVENTS_ONLY, QUIET, Daemon, Sections, merged, service_manager, verb
from tests.support.process import wait_for
from tests.support.trees import KSM, put

TENTH = merged(QUIET, {"daemon": {"tick_seconds": 0.1, "idle_tick_seconds": 0.1}})
MORE_TIME = "EXTEND_TIMEOUT_USEC=60000000"


def slow_unmerging(directory: Path) -> str:
    """The PATH on which what writes run=2 takes a second, as the kernel does for much memory."""
    tee = directory / "slow" / "tee"
    tee.parent.mkdir()
    tee.write_text(f'#!/bin/sh\nsleep 1\nexec {shutil.which("tee")} "$@"\n')
    tee.chmod(0o755)
    return f"{tee.parent}:{os.environ['PATH']}"


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


def test_it_is_asked_for_time_while_memory_is_given_back(root: Path, tmp_path: Path) -> None:
    """At the start a structural knob wants it, at the end on_exit, and after a kill run=2 as it was found."""
    put(root, f"{KSM}/pages_shared", "10\n")
    sections: Sections = {"kernel": {"max_page_sharing": 20}, "daemon": {"on_exit": "unmerge"}}
    with service_manager(tmp_path, PATH=slow_unmerging(tmp_path)) as manager:
        with Daemon(
            tmp_path / "daemon", merged(EVENTS_ONLY, sections), root=root, environment=manager.environment
        ) as daemon:
            starting = manager.wait("WATCHDOG=1")
            assert starting.index(MORE_TIME) < starting.index("READY=1")
            assert daemon.end() == 0
            ending = manager.heard()[len(starting) :]
            assert MORE_TIME in ending[ending.index("STOPPING=1") :]
        put(root, f"{KSM}/run", "2\n")
        with Daemon(tmp_path / "daemon", EVENTS_ONLY, root=root, environment=manager.environment) as daemon:
            wait_for(lambda: manager.heard()[-1] == "WATCHDOG=1", 20, "the first tick")
            daemon.end(signal.SIGKILL)
        before = len(manager.heard())
        environment = ["env", *(f"{name}={value}" for name, value in manager.environment.items())]
        verb("restore", "--root", root, "--runtime-dir", daemon.runtime, before=environment)
        assert MORE_TIME in manager.heard()[before:]
