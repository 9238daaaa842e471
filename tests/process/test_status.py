"""The verbs `status` and `why` tell how things are, beside a daemon and without one."""

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ksmtuned_py.cli.main import build_parser
from ksmtuned_py.cli.options import RUNTIME_DIR, runtime_of
from ksmtuned_py.door import Door
from ksmtuned_py.guests.ledger import Ledger
from ksmtuned_py.model import GuestKey
from tests.process.conftest import Start
from tests.support.daemon import EVENTS_ONLY, Daemon, verb
from tests.support.trees import GUESTS, KSM, put

PAGES = 262_144
"""The pages of a GiB."""


def asked(name: str, root: Path, runtime: Path, *arguments: str) -> str:
    """The text that the verb prints."""
    done = verb(name, "--root", root, "--runtime-dir", runtime, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def as_json(name: str, root: Path, runtime: Path) -> dict[str, Any]:
    """The JSON that the verb prints."""
    found: dict[str, Any] = json.loads(asked(name, root, runtime, "--json"))
    return found


@pytest.fixture
def daemon(root: Path, start: Start) -> Daemon:
    """A daemon that boosts, on a host where a GiB is saved."""
    put(root, f"{KSM}/pages_sharing", f"{PAGES}\n")
    return start(EVENTS_ONLY)


def test_status_beside_a_daemon(root: Path, daemon: Daemon) -> None:
    said = asked("status", root, daemon.runtime)
    assert said.startswith(f"daemon {daemon.pid}, ")
    assert "boost: 1 GiB saved" in said
    assert "boosting at 60 % of a core: new guest: web" in said
    assert "8 of 16 GiB available" in said
    assert "debt             1 GiB, and the host could find " in said
    assert "run=1, pages_to_scan=" in said


def test_why_beside_a_daemon(root: Path, daemon: Daemon) -> None:
    said = asked("why", root, daemon.runtime)
    assert "boosting at 60 % of a core: new guest: web" in said
    assert "The rules (the winner is news):" in said
    guards = ("foreign_writer", "inhibit", "no_guests", "debt", "net_loss", "cow_storm", "busy")
    for rule in ("need", "news", "yield", *guards):
        assert f" {rule} " in said
    assert "What would change it:\n  cruise: " in said


def test_json_beside_a_daemon(root: Path, daemon: Daemon) -> None:
    for name in ("status", "why"):
        found = as_json(name, root, daemon.runtime)
        assert (found["daemon_running"], found["pid"]) == (True, daemon.pid)
        assert found["saved_bytes"] == 2**30
        assert found["decision"]["rule"] == "news"
        assert found["outcome"]["results"]


def test_without_a_daemon_it_looks_itself_and_writes_nothing(root: Path, tmp_path: Path) -> None:
    before = {file: file.read_text() for file in (root / KSM).iterdir()}
    assert asked("status", root, tmp_path / "none").startswith(
        "no daemon runs; this is what one would see and do now\n"
    )
    assert "no daemon runs" in asked("why", root, tmp_path / "none")
    found = as_json("status", root, tmp_path / "none")
    assert (found["daemon_running"], found["decision"]["mode"]) == (False, "boost")
    assert {result["status"] for result in found["outcome"]["results"]} == {"dry"}
    assert {file: file.read_text() for file in (root / KSM).iterdir()} == before
    assert not (tmp_path / "none").exists()


def test_a_daemon_that_was_killed_does_not_run(root: Path, daemon: Daemon) -> None:
    daemon.end(signal.SIGKILL)
    assert (daemon.runtime / "status.json").exists()
    assert not as_json("status", root, daemon.runtime)["daemon_running"]


def test_what_a_killed_daemon_last_saw_is_nobodys_word(root: Path, daemon: Daemon) -> None:
    daemon.end(signal.SIGKILL)
    assert "web" in (daemon.runtime / "status.json").read_text()
    shutil.rmtree(root / f"proc/{GUESTS[0].pid}")
    assert verb("guests", "--json", "--root", root, "--runtime-dir", daemon.runtime).stdout == "[]\n"
    for name in ("status", "why"):
        assert as_json(name, root, daemon.runtime)["snapshot"]["guests"] == []
    assert "the daemon says" not in verb("doctor", "--all", "--root", root, "--runtime-dir", daemon.runtime).stdout


def test_another_process_with_its_pid_is_not_the_daemon(root: Path, daemon: Daemon) -> None:
    status = daemon.status()
    daemon.end(signal.SIGKILL)
    with subprocess.Popen(["sleep", "60"]) as later:
        status["snapshot"]["clock"]["monotonic_seconds"] -= 5.0  # by more than the kernel's clock is coarse
        (daemon.runtime / "status.json").write_text(json.dumps({**status, "pid": later.pid}))
        assert not as_json("status", root, daemon.runtime)["daemon_running"]
        later.kill()


def test_a_clock_that_was_set_since_hides_no_daemon_and_makes_none_late(root: Path, daemon: Daemon) -> None:
    status = daemon.status()
    (daemon.runtime / "status.json").write_text(json.dumps({**status, "written_unix_seconds": 0}))
    assert as_json("status", root, daemon.runtime)["daemon_running"]
    assert "late" not in asked("status", root, daemon.runtime)


def test_a_daemon_that_hangs_is_called_late(root: Path, daemon: Daemon) -> None:
    status = daemon.status()
    status["decision"]["next_tick_seconds"] = -1000
    (daemon.runtime / "status.json").write_text(json.dumps(status))
    assert f"daemon {daemon.pid} is late by " in asked("status", root, daemon.runtime)
    assert f"daemon {daemon.pid} is late by " in verb("guests", "--root", root, "--runtime-dir", daemon.runtime).stderr


def test_who_was_left_switched_off_is_known_without_a_daemon(root: Path, tmp_path: Path) -> None:
    web = GUESTS[0]
    Ledger(tmp_path / "switched.json", Door(str(root))).write({GuestKey(web.pid, web.start_ticks)})
    text = verb("guests", "--json", "--root", root, "--runtime-dir", tmp_path).stdout
    assert {guest["name"]: guest["switched_off"] for guest in json.loads(text)}["web"]


def test_anybody_may_ask(root: Path, daemon: Daemon) -> None:
    assert (daemon.runtime / "status.json").stat().st_mode & 0o777 == 0o644
    assert daemon.runtime.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("words", "directory"),
    [
        ("run", RUNTIME_DIR),
        ("unmerge --all", RUNTIME_DIR),
        ("status --root /srv/tree", RUNTIME_DIR / "trees"),
        ("restore --root /srv/tree --runtime-dir /srv/run", Path("/srv/run")),
    ],
)
def test_a_trees_runtime_directory_is_not_the_hosts(words: str, directory: Path) -> None:
    assert runtime_of(build_parser().parse_args(words.split())).directory == directory
