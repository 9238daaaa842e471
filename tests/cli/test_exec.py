"""`exec` starts a program with all its memory mergeable, and tells when that gets lost."""

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ksmtuned_py.door import Door
from ksmtuned_py.guests.enrolment import is_enrolled
from ksmtuned_py.guests.parse import parse_merge_any
from tests.support.daemon import verb
from tests.support.need import need
from tests.support.trees import make_fake_tree, mapping, put

ASK = "import ctypes; print(ctypes.CDLL(None).prctl(68, 0, 0, 0, 0), flush=True)"
WAIT = "; input()"
NO_MORE = "; ctypes.CDLL(None).prctl(67, 0, 0, 0, 0)"


@pytest.fixture(autouse=True)
def _enrolling_kernel() -> None:
    need(ctypes.CDLL(None).prctl(68, 0, 0, 0, 0) >= 0, "a kernel with PR_SET_MEMORY_MERGE")


@contextmanager
def started(program: str) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program under exec, which ends with its standard input."""
    command = [sys.executable, "-m", "ksmtuned_py", "exec", "--", sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_it_makes_all_memory_of_a_program_mergeable() -> None:
    done = verb("exec", "--", sys.executable, "-c", ASK)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "1", "")


def test_it_says_what_it_cannot_start() -> None:
    assert verb("exec", "--", "/nonexistent").returncode == 2
    assert "wanted a program" in verb("exec").stderr
    assert verb("exec", "echo", "--no-dashes-needed").stdout == "--no-dashes-needed\n"


def test_a_program_that_loses_it_is_told_of() -> None:
    with started(ASK + NO_MORE + WAIT) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "1\n"
        assert process.stderr.readline().startswith(
            f"ksmtuned-py: process {process.pid} is not offered to KSM any more"
        )


def test_the_program_is_its_own_master() -> None:
    children = "; import os; print(open(f'/proc/{os.getpid()}/task/{os.getpid()}/children').read() == '', flush=True)"
    with started(ASK + children + WAIT) as process:
        assert process.stdout
        assert process.stdout.read(7) == "1\nTrue\n"
        assert is_enrolled(Door(), process.pid) is True
        process.communicate("\n", timeout=10)  # the watcher lets go of the pipes as the program ends


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ksm_rmap_items 0\n", None),
        ("ksm_merge_any: yes\n", True),
        ("a 1\nksm_merge_any: no\nksm_mergeable: yes\n", False),
    ],
)
def test_what_the_kernel_says_of_it(text: str, said: bool | None) -> None:
    assert parse_merge_any(text) is said


def test_where_the_kernel_does_not_say_the_mappings_do(tmp_path: Path) -> None:
    door = Door(str(make_fake_tree(tmp_path, kernel="6.12")))
    assert is_enrolled(door, 1001) is None
    put(tmp_path, "proc/1001/smaps", mapping("mg"))
    assert is_enrolled(door, 1001) is True
    put(tmp_path, "proc/1001/smaps", mapping())
    assert is_enrolled(door, 1001) is False
    assert is_enrolled(door, 9999) is None
