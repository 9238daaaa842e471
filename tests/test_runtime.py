"""The runtime directory: one lock, and the debt of whoever changed knobs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ksmtuned_py.errors import AlreadyRunning, Garbage, NoRuntimeDirectory
from ksmtuned_py.model import Knobs
from ksmtuned_py.runtime import Runtime, replace_file

FOUND = Knobs(run=0, pages_to_scan=100, smart_scan=1, advisor_mode="scan-time")
KILLED_HOLDER = """
import os, signal, sys
from pathlib import Path
from ksmtuned_py.runtime import Runtime
with Runtime(Path(sys.argv[1])).locked():
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """A directory that is not there yet."""
    return Runtime(tmp_path / "run" / "ksmtuned-py")


def test_one_at_a_time(runtime: Runtime) -> None:
    with runtime.locked():
        holder = rf"lock: held by another ksmtuned-py \(PID {os.getpid()}\)"
        for _ in range(2):  # the one that failed takes nothing away
            with pytest.raises(AlreadyRunning, match=holder), runtime.locked():
                pass
    with runtime.locked():
        pass


def test_a_killed_holder_lets_go(runtime: Runtime) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_HOLDER, runtime.directory], check=False)
    assert killed.returncode == -9
    with runtime.locked():
        pass


def test_a_longer_pid_before_leaves_no_digits(runtime: Runtime) -> None:
    runtime.make()
    (runtime.directory / "lock").write_text("1" * 30)
    with runtime.locked():
        assert (runtime.directory / "lock").read_text() == str(os.getpid())


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NoRuntimeDirectory, match="file: cannot be used as the runtime directory: File exists"):
        Runtime(tmp_path / "file").make()
    with pytest.raises(NoRuntimeDirectory, match="Not a directory"), Runtime(tmp_path / "file/below").locked():
        pass
    (tmp_path / "lock").mkdir()
    with pytest.raises(NoRuntimeDirectory, match="Is a directory"), Runtime(tmp_path).locked():
        pass


def test_the_first_originals_count(runtime: Runtime) -> None:
    runtime.make()
    assert runtime.originals() is None
    runtime.save_originals(FOUND)
    runtime.save_originals(Knobs(run=1, pages_to_scan=5))
    assert runtime.originals() == FOUND
    runtime.forget_originals()
    runtime.forget_originals()
    assert runtime.originals() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": "on"}', '{"advisor_mode": "fast"}'])
def test_originals_that_make_no_sense(runtime: Runtime, text: str) -> None:
    runtime.make()
    runtime.originals_path.write_text(text)
    with pytest.raises(Garbage, match=r"originals\.json: wanted the knobs a daemon saved"):
        runtime.originals()


def test_originals_that_cannot_be_saved(runtime: Runtime) -> None:
    with pytest.raises(NoRuntimeDirectory, match="No such file or directory"):
        runtime.save_originals(FOUND)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    replace_file(file, "old")
    with file.open() as reader:
        replace_file(file, "new")
        assert (reader.read(), file.read_text()) == ("old", "new")
    assert list(tmp_path.iterdir()) == [file]
