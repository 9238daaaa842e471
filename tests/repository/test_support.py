"""Each helper of the tests can fail, as is shown here."""

import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tests.support import workers
from tests.support.emulated import Shown, marks, run_inside
from tests.support.need import need
from tests.support.process import Program, children, end_all, leftovers, wait_for
from tests.support.workers import MACHINE, ROOT, apart, group, interpreter_apart, may_run

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
ORPHAN = f"import subprocess; subprocess.Popen({SLEEPER!r})"


def test_need_skips_on_a_laptop_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    need(True, "nothing")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs a pony"):
        need(False, "a pony")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI must have it: a pony"):
        need(False, "a pony")


def test_wait_for_says_what_never_came() -> None:
    with pytest.raises(AssertionError, match=r"no pony within 0\.05 s; seen last: ''"):
        wait_for(lambda: "", 0.05, "pony")


def test_a_program_is_read_while_it_runs_and_gone_afterwards(tmp_path: Path) -> None:
    with Program([sys.executable, "-uc", "print('up'); import time; time.sleep(60)"], tmp_path) as program:
        assert "up" in program.wait_output("up")
    assert not psutil.pid_exists(program.pid)


def test_a_program_that_ends_early_is_told_with_its_output(tmp_path: Path) -> None:
    with (
        Program([sys.executable, "-c", "raise SystemExit('no ground')"], tmp_path) as program,
        pytest.raises(AssertionError, match="ended with 1 without 'up':\nno ground"),
    ):
        program.wait_output("up")


def test_a_leftover_child_is_found_and_killed() -> None:
    before = children()
    child = subprocess.Popen(SLEEPER)
    assert f"process {child.pid}" in leftovers(before, set(threading.enumerate()))[0]
    assert not psutil.pid_exists(child.pid)
    child.wait()


def test_a_leftover_grandchild_cannot_hide_behind_its_dead_parent() -> None:
    before = children()
    subprocess.run([sys.executable, "-c", ORPHAN], check=True)
    orphans = children() - before
    end_all(orphans)
    assert len(orphans) == 1
    assert leftovers(before, set(threading.enumerate())) == []


def test_a_leftover_thread_is_found() -> None:
    threads, stop = set(threading.enumerate()), threading.Event()
    thread = threading.Thread(target=stop.wait, name="stray")
    thread.start()
    try:
        assert leftovers(children(), threads) == ["thread stray"]
    finally:
        stop.set()
        thread.join()


@pytest.mark.emulated
def test_an_emulated_machine_that_takes_too_long_says_so() -> None:
    with pytest.raises(AssertionError, match=r"json.tool on 6.1: .* timed out after .*; its console:"):
        run_inside("6.1", ["json.tool"], seconds=0.5).of("json.tool")


BEGUN, ENDED = marks("pony 1")


@pytest.mark.parametrize(
    "console",
    [
        f"{BEGUN}\nNo module named pony\n{ENDED}1\n",
        f"{BEGUN}\nKernel panic - not syncing\n",
        f"{ENDED}0\n",
        "",
    ],
)
def test_a_program_that_does_not_end_well_in_an_emulated_machine_fails_with_the_console(console: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(f"pony 1 on 6.1: no hay; its console:\n{console}")):
        Shown("6.1", console, "no hay").of("pony 1")


def test_the_output_of_a_program_in_an_emulated_machine_is_what_it_printed_whatever_came_of_others() -> None:
    begun, ended = marks("horse")
    console = f"booting\n{begun}\nno hay\n{ended}1\n{BEGUN}\na pony\n{ENDED}0\nhalted\n"
    assert Shown("6.1", console, "timed out").of("pony 1") == "a pony\n"


@pytest.mark.parametrize(
    ("file", "with_it"),
    [
        ("kernel/test_merging.py", True),
        ("scan/test_zero.py", True),
        ("scan/test_qemu_zeros.py", True),
        ("guests_libvirt/test_link.py", True),
        ("packages/test_deb.py", True),
        ("repository/test_bench_harm.py", True),
        ("guests/test_arrivals.py", True),
        ("scan/test_lively.py", False),
        ("scan/test_remap.py", False),
        ("scan/test_disks.py", False),
        ("scan/test_arm64.py", False),
        ("emulated/test_daemon.py", False),
        ("packages/test_reproducible.py", False),
        ("policy/test_batch.py", False),
    ],
)
def test_what_uses_this_machine_is_one_workers_alone(file: str, with_it: bool) -> None:
    one, other = (group(f"tests/{file}::test_{number}") for number in (1, 2))
    assert (one == group("tests/kernel/test_backend.py::test")) is with_it
    assert (one == other) is (with_it or "policy" not in file)


@pytest.mark.parametrize("able", [True, False])
def test_remapped_processes_meet_no_worker_that_sees_them(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that do not see each other's processes share the files; else one worker has them all."""
    monkeypatch.setattr(workers, "apart", lambda: able)
    groups = {group(f"tests/scan/{name}.py::test") for name in ("test_lively", "test_disks")}
    assert len(groups) == (2 if able else 1)
    assert [may_run(each, sees_all=True) for each in sorted(groups)] == ([False, False] if able else [True])
    assert all(may_run(each, sees_all=False) for each in groups)


def test_who_is_kept_apart_sees_no_other_process() -> None:
    """The first worker alone runs what needs ksmd and the machine's other processes."""
    need(apart(), "root, to keep workers apart")
    program = "import os, pathlib; print(len([*pathlib.Path('/proc').glob('[0-9]*')]), os.getpid())"
    command = [*shlex.split(interpreter_apart()), "-c", program]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["1", "1"]
    assert may_run(MACHINE, sees_all=True)
    assert not may_run(MACHINE, sees_all=False)


def test_who_has_a_swap_comes_last() -> None:
    files = ["tests/scan/test_zero.py", "tests/scan/test_store.py"]
    words = ["-m", "pytest", "--collect-only", "-q", *files]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    found = [line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line]
    assert list(dict.fromkeys(found)) == files[::-1]
