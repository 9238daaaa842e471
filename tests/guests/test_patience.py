"""Processes that do not answer keep nobody waiting except, up to a limit, their own kind."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ksmtuned_py.door import Door
from ksmtuned_py.guests.discovery import GuestFinder
from ksmtuned_py.guests.patience import Patience, ask_one
from ksmtuned_py.guests.places import Places
from ksmtuned_py.guests.process import Inside, ProcessFiles, SlowFile
from tests.support.process import wait_for
from tests.support.procs import add_process, ksm_stat
from tests.support.snapshots import guest

MAY_MERGE = ksm_stat(rmap=10, merging=8, profit=32128, mergeable="yes")
QEMU = "qemu-system-x86"
HUNG = 8
"""The number of hung processes, as one mount of a dead server can easily leave behind."""


@pytest.fixture
def finder(tmp_path: Path) -> Iterator[GuestFinder]:
    """The finder on the tree below tmp_path."""
    with closing(GuestFinder(Door(str(tmp_path)))) as finder:
        yield finder


class Locked:
    """Files that make their readers wait, like the kernel's while a memory map is locked."""

    def __init__(self) -> None:
        self._fifos: list[Path] = []

    def lock(self, file: Path) -> Path:
        """Make the readers of a file wait from now on."""
        file.unlink(missing_ok=True)
        os.mkfifo(file)
        self._fifos.append(file)
        return file

    def release(self) -> None:
        """Let all readers go on, with nothing to read."""
        for fifo in self._fifos:
            descriptor = os.open(fifo, os.O_RDWR)
            fifo.unlink()
            os.close(descriptor)
        self._fifos.clear()


@pytest.fixture
def locked() -> Iterator[Locked]:
    """Files that can be locked. At the end all readers are released."""
    found = Locked()
    yield found
    found.release()
    wait_for(lambda: not asking(), 5.0, "end of the threads that asked")


def asking() -> int:
    """The number of threads that wait for an answer."""
    return sum(thread.name == "guests" for thread in threading.enumerate())


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Check that a with block takes less than so many seconds, so that it waited for no silent process."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def test_one_locked_memory_map_holds_up_nobody(tmp_path: Path, finder: GuestFinder, locked: Locked) -> None:
    stuck = add_process(tmp_path, 70, ["qemu-kvm", "-name", "web"], account=None)
    locked.lock(stuck / "ksm_stat")
    add_process(tmp_path, 71, ["qemu-kvm", "-name", "db"], account=MAY_MERGE)
    assert [each.ksm and each.ksm.merging_pages for each in finder.find(0)] == [None, 8]
    assert [each.ksm and each.ksm.merging_pages for each in finder.find(1)] == [None, 8]
    assert list(finder.problems) == ["process 70 does not answer: its memory map is locked"]
    locked.release()
    (stuck / "ksm_stat").write_text(MAY_MERGE)
    wait_for(lambda: finder.find(2)[0].ksm, 5, "account once it answers")
    assert not finder.problems


@pytest.mark.parametrize("file", ["cmdline", "ksm_stat"])
def test_hung_processes_end_neither_discovery_nor_the_accounts_of_guests(
    tmp_path: Path, finder: GuestFinder, locked: Locked, file: SlowFile
) -> None:
    old = add_process(tmp_path, 500, ["qemu-kvm", "-name", "old"], account=ksm_stat(mergeable="yes"))
    finder.find(0)
    for pid in range(100, 100 + HUNG):
        locked.lock(add_process(tmp_path, pid, ["/bin/cp", "from", "to"]) / file)
    for now_seconds in range(1, HUNG):
        finder.find(now_seconds)
    add_process(tmp_path, 600, ["qemu-kvm", "-name", "new"])
    (old / "ksm_stat").write_text(MAY_MERGE)
    found = {each.name: each for each in finder.find(HUNG)}
    assert set(found) == {"old", "new"}
    assert found["old"].ksm is not None
    assert found["old"].ksm.merging_pages == 8
    assert finder.problems == (f"{HUNG} processes do not answer (PID 100, 101, 102 ...): discovery is incomplete",)


def test_a_newcomer_with_a_hypervisors_name_is_asked_before_others(
    tmp_path: Path, finder: GuestFinder, locked: Locked
) -> None:
    for pid in range(100, 120):
        locked.lock(add_process(tmp_path, pid, ["/bin/cp"]) / "cmdline")
    add_process(tmp_path, 900, ["/usr/bin/qemu-system-x86_64", "-name", "web"])
    assert [each.name for each in finder.find(0)] == ["web"]


def test_what_starts_is_heeded_by_its_name_without_a_wait(tmp_path: Path, locked: Locked) -> None:
    for pid, name in ((70, QEMU), (71, "my-vmm-with-a-l"), (72, "fifteen-letters")):
        locked.lock(add_process(tmp_path, pid, [name], comm=name) / "cmdline")
    with closing(GuestFinder(Door(str(tmp_path)), ["my-vmm-with-a-long-name*"])) as finder, at_most(5.0):
        assert finder.heed({70})
        assert finder.heed({71})
        assert not finder.heed({72})
        assert asking() == 0


def test_no_more_threads_than_agreed_wait_for_locked_maps(tmp_path: Path, locked: Locked) -> None:
    processes = {pid: ProcessFiles(Door(str(tmp_path)), pid) for pid in range(100, 112)}
    for pid in processes:
        locked.lock(add_process(tmp_path, pid, ["qemu-kvm"]) / "ksm_stat")
    patience = Patience(limit=5, seconds=0.01)
    for _ in range(4):
        assert patience.ask(processes, lambda inside: inside.read("ksm_stat")) == {}
    assert len(patience.silent()) == asking() == 5


def test_who_is_left_behind_asks_nobody_else(tmp_path: Path, locked: Locked) -> None:
    locked.lock(add_process(tmp_path, 70, ["qemu-kvm"]) / "cmdline")
    add_process(tmp_path, 71, ["qemu-kvm"])
    asked: list[str] = []

    def question(inside: Inside) -> list[str]:
        asked.append(inside.path("cmdline"))
        return inside.words()

    processes = {pid: ProcessFiles(Door(str(tmp_path)), pid) for pid in (70, 71)}
    assert Patience(seconds=0.01).ask(processes, question) == {71: ["qemu-kvm"]}
    locked.release()
    wait_for(lambda: not asking(), 5.0, "end of the thread left behind")
    assert len(asked) == 2


def test_a_locked_cgroup_holds_up_no_place(tmp_path: Path, locked: Locked) -> None:
    for pid in (70, 71):
        add_process(tmp_path, pid, ["qemu-kvm"])
    locked.lock(tmp_path / "proc/70/cgroup")
    (tmp_path / "proc/71/cgroup").write_text("0::/a.slice\n")
    places = Places(Door(str(tmp_path))).look([guest("web", 70), guest("db", 71)])
    assert [place.cgroup for place in places.values()] == [None, "/a.slice"]


def test_whoever_asks_once_gets_an_answer_or_none(tmp_path: Path, locked: Locked) -> None:
    file = add_process(tmp_path, 70, ["qemu-kvm"]) / "smaps"
    process = ProcessFiles(Door(str(tmp_path)), 70)
    file.write_text("text\n")
    assert ask_one(process, lambda inside: inside.read("smaps"), 5.0) == "text\n"
    locked.lock(file)
    assert ask_one(process, lambda inside: inside.read("smaps"), 0.01) is None
