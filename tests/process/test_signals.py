"""Signals end the real process cleanly, and none of them is lost."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.process.conftest import Start, content
from tests.support.daemon import EVENTS_ONLY, KSMTUNED, QUICK, Daemon, free_port, merged, scrape, toml, verb
from tests.support.process import wait_for
from tests.support.trees import KSM, FakeGuest, add_guest


def knobs(root: Path) -> dict[str, str]:
    """Every file of the KSM directory with its text."""
    return {file.name: file.read_text().strip() for file in (root / KSM).iterdir()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("on_exit", "run"), [("restore", "1"), ("keep", "1"), ("stop", "0")])
def test_how_it_ends(root: Path, start: Start, number: signal.Signals, on_exit: str, run: str) -> None:
    before = knobs(root)
    daemon = start(merged(QUICK, {"daemon": {"on_exit": on_exit}}))
    ours = knobs(root)
    assert ours["pages_to_scan"] != before["pages_to_scan"]
    assert daemon.end(number) == 0
    assert knobs(root) == ({**ours} if on_exit == "keep" else {**before, "run": run})
    assert not (daemon.runtime / "originals.json").exists()
    assert not (daemon.runtime / "status.json").exists()
    assert "Traceback" not in daemon.output()


def test_once_is_one_tick_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    before = knobs(root)
    with Daemon(tmp_path / "daemon", QUICK, "--once", root=root) as daemon:
        assert daemon.wait() == 0
    assert "boosting at " in daemon.output()
    assert "pages_to_scan 123 -> " in daemon.output()
    assert knobs(root) == before
    assert not (daemon.runtime / "originals.json").exists()


def test_who_only_watches_changes_nothing(root: Path, start: Start) -> None:
    before = content(root)
    daemon = start(merged(QUICK, {"daemon": {"mode": "observe"}}))
    daemon.wait_ticks(5)
    assert "dry" in daemon.output()
    assert content(root) == before
    assert not (daemon.runtime / "originals.json").exists()
    assert daemon.end() == 0
    assert content(root) == before


def test_a_look_that_was_there_first_takes_nothing_from_a_daemon(root: Path, tmp_path: Path, start: Start) -> None:
    before, port = knobs(root), free_port()
    sections = merged(QUICK, {"metrics": {"address": f"127.0.0.1:{port}"}})
    runtime = ("--runtime-dir", str(tmp_path / "daemon/runtime"))  # the daemon's own
    with Daemon(tmp_path / "look", sections, "--dry-run", *runtime, root=root) as look:
        look.wait_output("dry")
        assert knobs(root) == before
        daemon = start(sections)
        look.reload("reloaded: metrics.address", merged(QUICK, {"metrics": {"address": "127.0.0.1:1"}}))
        assert look.end() == 0
    daemon.wait_ticks(2)
    assert daemon.status()["pid"] == daemon.pid
    assert scrape(port)
    assert daemon.end() == 0
    assert knobs(root) == before


def test_a_look_needs_nothing_that_the_running_daemon_has(root: Path, start: Start) -> None:
    port = free_port()
    daemon = start(merged(QUICK, {"metrics": {"address": f"127.0.0.1:{port}"}}))
    where = ("--config", daemon.config, "--root", root, "--runtime-dir", daemon.runtime)
    look = verb("run", "--once", "--dry-run", *where)
    assert look.returncode == 0, look.stderr
    assert " of a core: " in look.stderr  # it has decided something
    ticks = daemon.ticks()
    daemon.wait_ticks(2)
    assert daemon.ticks() > ticks
    assert daemon.status()["pid"] == daemon.process.pid
    assert verb("run", "--once", *where).returncode == 1  # a second daemon needs them
    assert daemon.end() == 0


@pytest.mark.parametrize("how", [["--dry-run"], []])
def test_a_port_in_use_is_no_hindrance_to_a_look(root: Path, tmp_path: Path, how: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        (tmp_path / "config.toml").write_text(toml({"metrics": {"address": address}}))
        done = verb(
            "run", "--once", *how, "--config", tmp_path / "config.toml", "--root", root, "--runtime-dir", tmp_path / "r"
        )
    assert done.returncode == (0 if how else 2)
    assert ("cannot listen" in done.stderr) is not bool(how)


def test_sigusr1_ticks_at_once(start: Start) -> None:
    daemon = start(EVENTS_ONLY)
    assert daemon.ticks() == 1
    for _ in range(2):
        ticks = daemon.ticks()
        daemon.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: daemon.ticks() > ticks, 20, "the tick that was asked for")  # noqa: B023 - called at once
        assert daemon.status()["snapshot"]["woken_by"] == ["asked"]
    assert daemon.end() == 0


@pytest.mark.parametrize("delay_seconds", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7])
def test_a_stop_while_it_starts(root: Path, tmp_path: Path, delay_seconds: float) -> None:
    before = knobs(root)
    with Daemon(tmp_path / "daemon", EVENTS_ONLY, root=root) as daemon:
        time.sleep(delay_seconds)  # anywhere between Python's own start and the first wait
        code = daemon.end()
    assert code in (0, -signal.SIGTERM)  # the latter only before anything was touched
    assert knobs(root) == before
    assert not (daemon.runtime / "originals.json").exists()
    assert "Traceback" not in daemon.output()


def test_more_signals_while_it_stops_change_nothing(root: Path, start: Start) -> None:
    before = knobs(root)
    daemon = start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        daemon.process.send_signal(number)
    assert daemon.wait() == 0
    assert knobs(root) == before


def test_a_flood_of_signals_is_no_backlog(start: Start) -> None:
    daemon = start(EVENTS_ONLY)
    for _ in range(2000):
        daemon.process.send_signal(signal.SIGUSR1)
    assert daemon.end() == 0
    assert "Traceback" not in daemon.output()


def test_ticks_that_are_always_late_hear_it_all_the_same(tmp_path: Path, root: Path, start: Start) -> None:
    for number in range(300):
        add_guest(root, FakeGuest(pid=2000 + number, name=f"guest-{number}"))
    before = knobs(root)
    daemon = start(merged(QUICK, {"daemon": {"tick_seconds": 0.01, "idle_tick_seconds": 0.01}}))
    daemon.wait_ticks(3)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_output("reloaded: nothing changed")
    assert daemon.end() == 0
    assert knobs(root) == before


def a_full_disk() -> int:
    """Open a file that takes nothing, as standard error."""
    return os.open("/dev/full", os.O_WRONLY)


def a_reader_who_left() -> int:
    """Open a pipe that nobody reads any more, as standard error."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    return write_end


def a_reader_who_sleeps() -> int:
    """Open a pipe that is full and stays full, as standard error."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    SLEEPERS.append(read_end)
    os.set_blocking(write_end, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write_end, b"x" * 4096)
    os.set_blocking(write_end, True)
    return write_end


SLEEPERS: list[int] = []


@pytest.mark.parametrize("stderr", [a_full_disk, a_reader_who_left, a_reader_who_sleeps])
def test_a_log_that_cannot_be_written_ends_nothing(root: Path, tmp_path: Path, stderr: Callable[[], int]) -> None:
    before, descriptor = knobs(root), stderr()
    (tmp_path / "config.toml").write_text(toml(QUICK))
    where = ["--config", str(tmp_path / "config.toml"), "--root", str(root), "--runtime-dir", str(tmp_path / "r")]
    daemon = subprocess.Popen([*KSMTUNED, "run", "--debug", *where], stderr=descriptor)
    try:
        wait_for((tmp_path / "r/status.json").exists, 20.0, "first tick")
        daemon.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        daemon.terminate()
        assert daemon.wait(20.0) == 0
    finally:
        daemon.kill()
        daemon.wait()
        for each in (descriptor, *SLEEPERS):
            os.close(each)
        SLEEPERS.clear()
    assert knobs(root) == before
