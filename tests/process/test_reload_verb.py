"""`ksmtuned-py reload` waits for the daemon's own answer, and fails with every mistake when it refuses."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ksmtuned_py.door.runtime import Runtime
from tests.process.conftest import Start
from tests.support.daemon import EVENTS_ONLY, QUICK, Daemon, Sections, merged, one_clear_error, unprivileged, verb
from tests.support.need import need
from tests.support.process import wait_for
from tests.support.trees import KSM, put

FIXED: Sections = {"policy": {"name": "fixed"}, "fixed": {"pages_to_scan": 777}}


def reload(daemon: Daemon, sections: Sections, before: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """How the verb ends behind another configuration."""
    daemon.configure(sections)
    return verb("reload", "--runtime-dir", daemon.runtime, before=before or [])


def test_it_tells_what_changed_when_it_is_in_force(root: Path, start: Start) -> None:
    daemon = start(EVENTS_ONLY)
    done = reload(daemon, merged(EVENTS_ONLY, FIXED))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "reloaded: policy.name 'adaptive' -> 'fixed', fixed.pages_to_scan 1000 -> 777\n"


def test_every_mistake_of_the_configuration_is_told(root: Path, start: Start) -> None:
    daemon = start(QUICK)
    done = reload(daemon, merged(QUICK, {"policy": {"name": "fixt"}, "fixed": {"pages_to_scan": 0}}))
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0].endswith("reload refused, the old configuration stays: 2 mistakes in the configuration")
    assert lines[1].startswith(f'{daemon.config}:12: policy.name = "fixt": wanted one of adaptive')
    assert lines[2].startswith(f"{daemon.config}:15: fixed.pages_to_scan = 0: wanted a whole number")
    daemon.wait_ticks(2)
    assert daemon.status()["decision"]["mode"] == "boost"


def test_what_the_daemon_alone_can_refuse_fails_it_too(root: Path, start: Start) -> None:
    daemon = start(QUICK)
    put(root, f"{KSM}/advisor_mode", None)
    done = reload(daemon, merged(QUICK, {"policy": {"name": "advisor"}, "metrics": {"address": "192.0.2.1:10776"}}))
    said = one_clear_error(done)
    assert "this kernel's KSM has no advisor; metrics.address 192.0.2.1:10776: cannot listen" in said
    again = reload(daemon, merged(QUICK, FIXED))  # and a mended one is taken
    assert again.returncode == 0, again.stderr


def test_a_clock_that_was_set_since_the_start_hides_no_daemon(start: Start) -> None:
    daemon = start(EVENTS_ONLY)
    os.utime(daemon.runtime / "lock", (0, 0))  # as it is by a clock that was in 1970 then
    done = reload(daemon, merged(EVENTS_ONLY, FIXED))
    assert (done.returncode, done.stderr) == (0, "")


AT_WORK = """
import sys
from pathlib import Path
from ksmtuned_py.door.runtime import Runtime
with Runtime(Path(sys.argv[1])).locked():
    print(input(), flush=True)
"""
"""What has the lock as `restore` has it, until it is told to end."""


def test_who_puts_the_knobs_back_meanwhile_is_not_cut_short(tmp_path: Path) -> None:
    command = [sys.executable, "-c", AT_WORK, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        wait_for(lambda: Runtime(tmp_path).holder(), 30.0, "a lock that is held")
        said = one_clear_error(verb("reload", "--runtime-dir", tmp_path), 1)
        assert f"process {other.pid} has the lock, and is no daemon" in said
        assert other.communicate("done\n", timeout=30.0)[0] == "done\n"


def test_where_none_runs_it_fails(start: Start, tmp_path: Path) -> None:
    nothing = verb("reload", "--runtime-dir", tmp_path / "nowhere")
    assert one_clear_error(nothing, 1) == "no daemon has taken the configuration: none runs"
    daemon = start(QUICK)
    assert daemon.end() == 0
    assert "none runs" in one_clear_error(verb("reload", "--runtime-dir", daemon.runtime), 1)


def test_a_process_that_has_the_number_of_a_killed_daemon_gets_no_signal(start: Start) -> None:
    daemon = start(QUICK)
    assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
    lock = daemon.runtime / "lock"
    with subprocess.Popen(["sleep", "60"]) as bystander:
        lock.write_text(str(bystander.pid))
        os.utime(lock, (1, 1))  # written before it began
        done = verb("reload", "--runtime-dir", daemon.runtime)
        assert "none runs" in one_clear_error(done, 1)
        assert bystander.poll() is None
        bystander.kill()


def test_one_that_ends_instead_of_answering_is_told(start: Start) -> None:
    daemon = start(QUICK)
    daemon.process.send_signal(signal.SIGSTOP)
    with subprocess.Popen(["sh", "-c", f"sleep 1; kill -KILL {daemon.pid}"]):
        done = verb("reload", "--runtime-dir", daemon.runtime)
    assert one_clear_error(done, 1) == "no daemon has taken the configuration: it has ended"


def test_a_stranger_may_not(start: Start) -> None:
    need(os.geteuid() == 0, "root, to be somebody else")
    daemon = start(QUICK)
    done = reload(daemon, merged(QUICK, FIXED), unprivileged())
    assert "not permitted to signal process" in one_clear_error(done, 1)
    daemon.wait_ticks(2)
    assert daemon.status()["decision"]["mode"] == "boost"


@pytest.mark.parametrize("text", ["", "[]", '{"began_seconds": "soon"}'])
def test_an_answer_that_is_none_is_waited_out(start: Start, text: str) -> None:
    daemon = start(EVENTS_ONLY)
    (daemon.runtime / "reload.json").write_text(text)
    assert reload(daemon, merged(EVENTS_ONLY, FIXED)).returncode == 0
