"""The child that unshares a guest's pages runs our own program, and tells that it goes on."""

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ksmtuned_py.door import Door
from ksmtuned_py.guests.process import ProcessFiles
from ksmtuned_py.undo.unsharing import NotUnshared, Unsharing
from ksmtuned_py.units import GIB
from tests.support.need import need
from tests.support.snapshots import guest

PLUGGABLE = """
import mmap, sys
memory = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
print("mapped", flush=True)
sys.stdin.read()
"""


def test_its_program_is_not_looked_for_in_the_directory_we_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ksmtuned_py/undo").mkdir(parents=True)
    (tmp_path / "ksmtuned_py/__init__.py").touch()
    (tmp_path / "ksmtuned_py/undo/unshare.py").write_text("import pathlib; pathlib.Path('owned').touch()\n")
    monkeypatch.chdir(tmp_path)
    gone = guest("web", os.getpid())  # the process with this PID started at another time
    with closing(Unsharing(gone)) as unsharing, pytest.raises(NotUnshared, match="No such process"):
        unsharing.merged_pages()
    assert not (tmp_path / "owned").exists()


def test_a_guest_with_tebibytes_to_be_plugged_in_is_looked_through_and_it_is_said_meanwhile() -> None:
    """To look through one takes a second, which is when it is said first."""
    need(os.geteuid() == 0, "root, to look into another process")
    command = [sys.executable, "-c", PLUGGABLE, str(3 * 1024 * GIB)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mapped\n"
        identity, heard = ProcessFiles(Door(), process.pid).identity(), list[str]()
        assert identity is not None
        web = replace(guest("web", process.pid), start_ticks=identity.start_ticks)
        with closing(Unsharing(web, heard.append)) as unsharing:
            assert unsharing.merged_pages() == 0
            assert set(heard) == {"web: its merged pages are looked for ..."}
            assert unsharing.go_on() == (0, 0)
        process.communicate()
