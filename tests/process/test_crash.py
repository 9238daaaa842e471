"""A killed daemon's knobs are put back, and of two daemons the second is kept out."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.conftest import Start
from tests.process.test_signals import knobs
from tests.support.daemon import EVENTS_ONLY, QUICK, Daemon, free_port, merged, one_clear_error, scrape, verb
from tests.support.trees import KSM, make_fake_tree, put


def kill(daemon: Daemon) -> None:
    """Kill the daemon without a chance to put anything back."""
    assert daemon.end(signal.SIGKILL) == -signal.SIGKILL


def restore(root: Path, daemon: Daemon) -> str:
    """The output of the verb `restore`."""
    done = verb("restore", "--root", root, "--runtime-dir", daemon.runtime)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_restore_after_a_kill(root: Path, start: Start) -> None:
    before = knobs(root)
    daemon = start()
    kill(daemon)
    assert knobs(root) != before
    said = restore(root, daemon)
    assert said.startswith("put back: run=1, pages_to_scan=123, sleep_millisecs=45")
    assert knobs(root) == before
    assert restore(root, daemon) == "nothing to put back\n"


def test_restore_refuses_the_knobs_of_another_tree(root: Path, start: Start, tmp_path: Path) -> None:
    other = make_fake_tree(tmp_path / "other", run=1, pages_to_scan=500, max_page_sharing=64)
    before = knobs(other)
    daemon = start()
    kill(daemon)
    for verb_and_more in (("restore",), ("run", "--once", "--config", daemon.config)):
        done = verb(*verb_and_more, "--root", other, "--runtime-dir", daemon.runtime)
        said = one_clear_error(done)
        assert said.startswith(f"{daemon.runtime}/originals.json: holds the knobs of kernel below {root}, boot ")
        assert f"ksmtuned-py restore --root {root}" in done.stderr
        assert knobs(other) == before
    restore(root, daemon)


def test_restore_where_no_daemon_ever_ran(root: Path, tmp_path: Path) -> None:
    done = verb("restore", "--root", root, "--runtime-dir", tmp_path / "never")
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing to put back\n", "")
    assert not (tmp_path / "never").exists()


def test_the_next_run_puts_back_first_and_so_remembers_the_right_knobs(root: Path, start: Start) -> None:
    before = knobs(root)
    first = start()
    kill(first)
    second = start()
    assert "pages_to_scan 123 -> " in second.output()
    assert json.loads((second.runtime / "originals.json").read_text())["knobs"]["pages_to_scan"] == 123
    assert second.end() == 0
    assert knobs(root) == before


def test_a_start_that_fails_after_a_kill_still_owes_everything(root: Path, start: Start, tmp_path: Path) -> None:
    before = knobs(root)
    daemon = start(merged(QUICK, {"daemon": {"on_exit": "keep"}}))
    kill(daemon)
    daemon.configure({"metrics": {"address": "192.0.2.1:1"}, "daemon": {"on_exit": "keep"}})
    where = ("--root", root, "--runtime-dir", daemon.runtime)
    one_clear_error(verb("run", *where, "--config", daemon.config))
    restore(root, daemon)
    assert knobs(root) == before


def test_a_second_daemon_is_kept_out(root: Path, start: Start) -> None:
    daemon = start()
    done = verb("run", "--root", root, "--runtime-dir", daemon.runtime, "--config", daemon.config)
    lock = daemon.runtime / "lock"
    said = f"{lock}: locked by another ksmtuned-py (PID {daemon.pid}); only one may steer KSM"
    assert one_clear_error(done, exit_code=1) == said
    done = verb("restore", "--root", root, "--runtime-dir", daemon.runtime)
    assert one_clear_error(done, exit_code=1) == said
    daemon.wait_ticks(2)
    assert daemon.end() == 0


def test_a_model_leaves_the_hosts_own_daemon_alone(root: Path, start: Start) -> None:
    daemon = start()
    originals = (daemon.runtime / "originals.json").read_bytes()
    where = ("--runtime-dir", daemon.runtime, "--config", daemon.config)
    done = verb("run", "--backend", "model", "--once", *where)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    daemon.wait_ticks(2)
    assert daemon.status()["pid"] == daemon.pid
    assert (daemon.runtime / "originals.json").read_bytes() == originals
    assert daemon.end() == 0


def test_a_model_needs_nothing_of_what_a_killed_daemon_left(root: Path, start: Start) -> None:
    before = knobs(root)
    daemon = start()
    kill(daemon)
    where = ("--runtime-dir", daemon.runtime, "--config", daemon.config)
    assert verb("run", "--backend", "model", "--once", *where).returncode == 0
    assert restore(root, daemon).startswith("put back: run=1, pages_to_scan=123")
    assert knobs(root) == before


def test_ticks_that_keep_failing_end_it_with_the_knobs_back(root: Path, start: Start) -> None:
    before = knobs(root)
    daemon = start()
    put(root, f"{KSM}/pages_sharing", "garbage\n")
    assert daemon.wait() == 1  # the service manager may try again
    assert "ksmtuned-py: error: no tick can be completed: " in daemon.output()
    assert knobs(root) == {**before, "pages_sharing": "garbage"}
    errors = [line for line in daemon.output().splitlines() if "error" in line]
    assert len(errors) == 2, daemon.output()  # one for the tick that failed, and one for why it ends
    assert "Traceback" not in daemon.output()


def test_failed_ticks_are_counted_and_the_last_good_one_stays_to_be_seen(root: Path, start: Start) -> None:
    port = free_port()
    daemon = start(merged(EVENTS_ONLY, {"metrics": {"address": f"127.0.0.1:{port}"}}))
    put(root, f"{KSM}/pages_sharing", "garbage\n")
    daemon.process.send_signal(signal.SIGUSR1)
    daemon.wait_output("tick failed: Garbage")
    daemon.wait_status(lambda status: status["totals"]["errors"], "a counted error")
    assert scrape(port)['ksmtuned_errors_total{where="tick"}'] == 1
    assert scrape(port)["ksmtuned_tick_duration_seconds_count"] == 1


def test_somebody_else_who_writes_is_named_counted_and_left_alone(root: Path, start: Start) -> None:
    port = free_port()
    daemon = start(merged(QUICK, {"metrics": {"address": f"127.0.0.1:{port}"}}))
    put(root, f"{KSM}/pages_to_scan", "1250\n")
    daemon.wait_output("somebody else changed pages_to_scan from our ")
    status = daemon.wait_status(lambda status: status["decision"]["mode"] == "held", "hands off")
    assert "pages_to_scan is 1250 where we wrote " in status["decision"]["reason"]
    assert status["decision"]["rule"] == "foreign_writer"
    daemon.wait_ticks(5)
    assert (root / KSM / "pages_to_scan").read_text() == "1250\n"
    assert scrape(port)['ksmtuned_foreign_writes_total{knob="pages_to_scan"}'] == 1
    assert scrape(port)['ksmtuned_mode{mode="held"}'] == 1


def test_a_runtime_directory_that_goes_away_does_not_stop_it(root: Path, start: Start, tmp_path: Path) -> None:
    daemon = start(merged(QUICK))
    daemon.runtime.rename(tmp_path / "elsewhere")
    daemon.wait_output("cannot publish: ")
    (tmp_path / "elsewhere").rename(daemon.runtime)
    daemon.wait_ticks(2)
    assert daemon.end() == 0


def edited(runtime: Path) -> None:
    """Spoil the saved knobs, like an admin who edited the file."""
    file = runtime / "originals.json"
    file.write_text(file.read_text().replace("123", "4000000000"))


@pytest.mark.parametrize(
    "spoil",
    [edited, lambda runtime: (runtime / "originals.json").write_text(""), shutil.rmtree],
    ids=["edited", "emptied", "directory gone"],
)
def test_what_becomes_of_the_saved_knobs_while_it_runs_is_not_put_back(
    root: Path, start: Start, spoil: Callable[[Path], None]
) -> None:
    before = knobs(root)
    daemon = start(EVENTS_ONLY)
    assert knobs(root) != before
    spoil(daemon.runtime)
    assert daemon.end() == 0
    assert knobs(root) == before
