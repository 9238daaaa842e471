"""Files that a process can make as long as it likes are not read to their end."""

import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ksmtuned_py.config import Config
from ksmtuned_py.daemon.machine import look
from ksmtuned_py.door import Door
from ksmtuned_py.guests.process import MOST_BYTES, Inside, ProcessFiles, SlowFile
from ksmtuned_py.units import GIB, MIB
from tests.support.procs import add_process
from tests.support.trees import FakeGuest, make_fake_tree

HUGE_BYTES = 4 * GIB


def make_huge(file: Path) -> None:
    """Make a file as long as a process can declare its command line to be, at no cost."""
    with file.open("ab") as opened:
        os.truncate(opened.fileno(), HUGE_BYTES)


@contextmanager
def memory_at_most(size_bytes: int) -> Iterator[None]:
    """Check that a with block never takes more memory than that."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size_bytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("file", ["cmdline", "smaps", "cgroup", "ksm_stat"])
def test_no_file_of_a_process_is_read_for_ever(tmp_path: Path, file: SlowFile) -> None:
    make_huge(add_process(tmp_path, 70, ["kvm"]) / file)
    inside = Inside(ProcessFiles(Door(str(tmp_path)), 70))
    with memory_at_most(4 * MOST_BYTES.get(file, MIB)):
        assert inside.read(file) is None
        if file == "cmdline":
            assert inside.words() == []


def test_a_look_at_the_host_passes_over_it(tmp_path: Path) -> None:
    hostile = FakeGuest(pid=70, name="", comm="bash", command=("bash",), mergeable=False)
    make_fake_tree(tmp_path, guests=[hostile, FakeGuest(pid=71, name="web")])
    make_huge(tmp_path / "proc/70/cmdline")
    with memory_at_most(32 * MIB):
        assert [each.name for each in look(Door(str(tmp_path)), Config()).guests] == ["web"]


def test_of_many_descriptors_no_more_are_listed_than_are_looked_at(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).symlink_to("anon_inode:kvm-vm")
    assert len(Door(str(tmp_path)).links(".", 5)) == 5
