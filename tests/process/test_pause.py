"""The verbs `pause` and `resume` work beside a daemon on a made-up tree."""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from ksmtuned_py.door.runtime import Runtime
from ksmtuned_py.host import system_clock
from ksmtuned_py.model import Clock, Pause
from tests.process.conftest import Start
from tests.support.daemon import EVENTS_ONLY, Daemon, free_port, merged, scrape, verb
from tests.support.need import need
from tests.support.trees import KSM

HOUR = ("pause", "--for", "1h", "--reason", "live migration")


def ask(daemon: Daemon, *words: str) -> str:
    """The output of a verb about this daemon."""
    done = verb(*words, "--runtime-dir", daemon.runtime)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def run_knob(root: Path) -> str:
    """The text of the knob run, which tells whether ksmd scans."""
    return (root / KSM / "run").read_text().strip()


def test_it_is_heeded_at_once_and_told_everywhere(root: Path, start: Start) -> None:
    port = free_port()
    daemon = start(merged(EVENTS_ONLY, {"metrics": {"address": f"127.0.0.1:{port}"}}))
    assert run_knob(root) == "1"
    assert scrape(port)["ksmtuned_pause_left_seconds"] == 0
    said = ask(daemon, *HOUR)
    assert re.search(r"the daemon heeds it: off: paused for .* more \(live migration\)", said)
    assert run_knob(root) == "0"
    assert 3500 < scrape(port)["ksmtuned_pause_left_seconds"] <= 3600
    assert ": live migration\n" in ask(daemon, "status", "--root", str(root)).partition("  paused ")[2]
    assert "* paused" in ask(daemon, "why", "--root", str(root))
    daemon.wait_output("(live migration)")
    assert "the daemon heeds it: boosting" in ask(daemon, "resume")
    assert run_knob(root) == "1"
    assert ask(daemon, "resume") == "nobody asked for a pause\n"


def test_it_survives_a_restart(root: Path, start: Start) -> None:
    first = start(EVENTS_ONLY)
    ask(first, *HOUR)
    assert first.end() == 0
    second = start(EVENTS_ONLY)
    assert second.status()["decision"]["rule"] == "paused"
    assert run_knob(root) == "0"


def test_it_ends_by_itself(root: Path, start: Start) -> None:
    daemon = start(EVENTS_ONLY)
    ask(daemon, "pause", "--for", "2s")
    daemon.wait_status(lambda status: status["snapshot"]["pause"] is None, "the end of the pause")
    assert run_knob(root) == "1"


def test_without_a_daemon_it_waits_for_one(tmp_path: Path) -> None:
    done = verb(*HOUR, "--runtime-dir", tmp_path / "runtime")
    assert done.stdout.endswith("no daemon runs now\n")
    assert Runtime(tmp_path / "runtime").pause(system_clock()) is not None


def pause_often(directory: Path) -> None:
    """Asks for pauses as the hooks of many migrations do."""
    for seconds in range(1, 200):
        Runtime(directory).save_pause(Pause(until_unix_seconds=seconds, reason="migration"))


def test_many_may_ask_for_one_at_once(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3) as pool:
        list(pool.map(pause_often, [tmp_path] * 3))
    assert Runtime(tmp_path).pause(Clock(monotonic_seconds=0, unix_seconds=0)) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["pause.json"]


@pytest.mark.parametrize("text", ["{}", "", "[" * 1000])
def test_a_file_that_holds_no_pause_is_cleared_away_by_resume(text: str, tmp_path: Path) -> None:
    file = Runtime(tmp_path).pause_path
    file.write_text(text)
    done = verb("resume", "--runtime-dir", tmp_path)
    assert (done.returncode, done.stdout) == (0, "nobody asked for a pause\n")
    assert f"{file}: wanted a pause" in done.stderr
    assert not file.exists()


@pytest.mark.parametrize("text", ["", "1", "0s", "8d", "1h 30m", "-1h", "1.5h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    done = verb("pause", f"--for={text}")
    assert done.returncode == 2
    assert "wanted a time like 90s" in done.stderr


HOSTILE = "\x1b]0;owned\x07 \udcff\r\n[off] one"
"""An escape sequence, a byte that is no UTF-8, and line ends."""


def test_a_reason_steers_no_terminal(tmp_path: Path) -> None:
    done = verb("pause", "--for", "1h", "--reason", HOSTILE, "--runtime-dir", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.replace("\n", "").isprintable()
    found = Runtime(tmp_path).pause(system_clock())
    assert found is not None
    assert found.reason == "\\x1b]0;owned\\x07 \\udcff [off] one"


@pytest.mark.parametrize("text", ["", "  \n", 201 * "x"], ids=["empty", "blank", "long"])
def test_what_is_no_reason_is_refused(text: str, tmp_path: Path) -> None:
    done = verb("pause", "--for", "1h", "--reason", text, "--runtime-dir", tmp_path)
    assert (done.returncode, "wanted a reason of 1 to 200 signs" in done.stderr) == (2, True)


def test_nobody_can_have_another_users_process_signalled(start: Start) -> None:
    """The status file names a process; its owner may be another than root."""
    need(os.geteuid() == 0, "root, who could signal anybody")
    daemon = start(EVENTS_ONLY)
    status = daemon.status()
    daemon.end()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        time.sleep(0.05)  # the status is newer than the process
        status["snapshot"]["clock"]["monotonic_seconds"] = time.monotonic()
        (daemon.runtime / "status.json").write_text(json.dumps({**status, "pid": bystander.pid}))
        os.chown(daemon.runtime / "status.json", 65534, 65534)
        assert "does not heed it yet" in ask(daemon, *HOUR)
        assert bystander.poll() is None
        bystander.kill()
