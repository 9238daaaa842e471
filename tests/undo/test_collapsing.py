"""Split huge pages of a real process become whole again from outside, unless something speaks against it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ksmtuned_py.door import Door
from ksmtuned_py.guests.hugepages import read_huge_pages
from ksmtuned_py.guests.process import ProcessFiles
from ksmtuned_py.model import Guest
from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES
from ksmtuned_py.undo.hugeback import Collapsing, NotHuge, roomy
from ksmtuned_py.units import GIB
from tests.support.khugepaged import SLEEP, khugepaged_at_rest
from tests.support.memcgroup import memory_cgroup, removed
from tests.support.need import need
from tests.support.process import wait_for
from tests.support.snapshots import guest

SETTINGS = read_huge_pages(Door())
RANGE_PAGES = SETTINGS.size_bytes // OWN_PAGE_BYTES
COUNTS = (0, 1, 3, 40, 300)
RAGGED = (sys.executable, "-m", "tests.support.ragged", *map(str, COUNTS))
PLUGGABLE = """
import mmap, sys
memory = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
memory.madvise(mmap.MADV_HUGEPAGE)
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Process:
    """A process with one range for each of COUNTS, with so many zero pages."""

    child: "subprocess.Popen[str]"
    guest: Guest

    def do(self, word: str) -> str:
        """Have it do something, and return its answer."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        print(word, file=self.child.stdin, flush=True)
        return self.child.stdout.readline().strip()


@contextmanager
def running(*command: str) -> Iterator[Process]:
    """A process that has said that it is ready."""
    need(os.geteuid() == 0, "root, to look into another process")
    need(SETTINGS.enabled != "never" and SETTINGS.size_bytes > 0, "transparent huge pages")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        identity = ProcessFiles(Door(), child.pid).identity()
        assert identity is not None
        yield Process(child, replace(guest("web", child.pid), start_ticks=identity.start_ticks))
        child.send_signal(signal.SIGCONT)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process is frozen in a cgroup of its own for the length of a with block."""
    old, new = Path("/sys/fs/cgroup/freezer"), Path("/sys/fs/cgroup")
    root, file, words = (
        (old, "freezer.state", ("FROZEN", "THAWED")) if old.is_dir() else (new, "cgroup.freeze", ("1", "0"))
    )
    directory = root / "ksmtuned-py-huge-frozen"
    directory.mkdir()
    try:
        (directory / "cgroup.procs").write_text(str(pid))
        (directory / file).write_text(words[0])
        yield
    finally:
        (directory / file).write_text(words[1])
        (root / "cgroup.procs").write_text(str(pid))
        wait_for(lambda: removed(directory), 2.0, "end of the cgroup")


@pytest.fixture(scope="module", autouse=True)
def khugepaged_rests() -> Iterator[None]:
    """khugepaged sleeps for an hour, or it would make ranges whole by itself. One run of these tests at a time."""
    need(os.access(SLEEP, os.W_OK), "root, and transparent huge pages")
    with khugepaged_at_rest():
        yield


@pytest.fixture
def process() -> Iterator[Process]:
    """A process with one range for each of COUNTS. khugepaged may be awake once more: then it is another process."""
    for _ in range(3):
        with running(*RAGGED) as found:
            if split(found) == dict.fromkeys(COUNTS[1:], 1):
                yield found
                return
    pytest.fail("khugepaged was always faster")


@pytest.fixture
def collapsing(process: Process) -> Iterator[Collapsing]:
    """Its survey is done."""
    with closing(Collapsing(process.guest)) as collapsing:
        collapsing.survey()
        yield collapsing


def split(process: Process) -> dict[int, int]:
    """The split ranges by their merged pages, seen anew."""
    with closing(Collapsing(process.guest)) as collapsing:
        return {merged: count for merged, count in enumerate(collapsing.survey().split) if count}


def test_the_cheapest_come_first_and_contents_stay(process: Process) -> None:
    before = process.do("hash")
    with closing(Collapsing(process.guest)) as collapsing:
        survey = collapsing.survey()
        assert survey.range_pages == RANGE_PAGES
        assert (survey.huge, survey.left) == (1, 0)
        assert [merged for merged, count in enumerate(survey.split) if count] == [1, 3, 40, 300]
        first = collapsing.go_on(40, 2)
        assert (first.given, first.paid, first.more) == (2, 4, True)
        assert split(process) == {40: 1, 300: 1}
        rest = collapsing.go_on(40, 8)
        assert (rest.given, rest.paid, rest.more) == (1, 40, False)
    assert split(process) == {300: 1}
    assert process.do("hash") == before


def test_another_process_with_its_pid_is_left_alone(process: Process) -> None:
    gone = replace(process.guest, start_ticks=1)
    with closing(Collapsing(gone)) as collapsing, pytest.raises(NotHuge, match="No such process"):
        collapsing.survey()


def test_a_process_that_ended_meanwhile_is_told(process: Process, collapsing: Collapsing) -> None:
    process.child.kill()
    process.child.wait()
    with pytest.raises(NotHuge, match="No such process"):
        collapsing.go_on(40, 8)


def test_a_program_that_took_its_place_keeps_its_memory_as_it_is(process: Process, collapsing: Collapsing) -> None:
    process.do("exec")
    with pytest.raises(NotHuge, match="No such process"):
        collapsing.go_on(RANGE_PAGES, 8)
    assert split(process) == {9: 1}


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("lock", "its memory is locked"),
        ("userfaultfd", "filled on demand"),
        ("migrate", "it is being migrated"),
    ],
)
def test_what_speaks_against_it_is_seen_before_each_portion(
    process: Process, collapsing: Collapsing, deed: str, words: str
) -> None:
    assert collapsing.go_on(40, 1).given == 1
    process.do(deed)
    told = collapsing.go_on(40, 8)
    assert told.given == 0
    assert told.problem is not None
    assert words in told.problem


def test_a_stopped_process_is_left_alone(process: Process, collapsing: Collapsing) -> None:
    process.child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.child.pid, os.WSTOPPED)
    assert collapsing.go_on(40, 8).problem == "it is stopped or frozen"


def test_a_frozen_process_is_left_alone(process: Process, collapsing: Collapsing) -> None:
    with frozen(process.child.pid):
        assert collapsing.go_on(40, 8).problem == "it is stopped or frozen"


def test_a_cgroup_that_has_no_room_is_seen_and_its_process_is_unharmed() -> None:
    with memory_cgroup("ksmtuned-py-huge") as cgroup, running(*cgroup.starting(*RAGGED)) as process:
        before = process.do("hash")
        cgroup.limit(cgroup.used_bytes() + RANGE_PAGES * OWN_PAGE_BYTES // 2)
        room_bytes = roomy(Door())(process.guest)
        assert room_bytes is not None
        assert room_bytes <= RANGE_PAGES * OWN_PAGE_BYTES // 2
        with closing(Collapsing(process.guest)) as collapsing:
            collapsing.survey()
            told = collapsing.go_on(RANGE_PAGES, 8)
        assert told.problem in (None, "its cgroup has no room")  # None where the kernel made room
        assert process.child.poll() is None
        assert process.do("hash") == before


def test_ranges_with_holes_are_left_as_a_balloon_made_them(process: Process, collapsing: Collapsing) -> None:
    process.do("balloon")
    told = collapsing.go_on(40, 8)
    assert (told.given, told.left) == (2, 1)
    with closing(Collapsing(process.guest)) as again:
        assert again.survey().left == 1


def test_what_a_child_shares_is_left_alone(process: Process, collapsing: Collapsing) -> None:
    child = int(process.do("fork"))
    told = collapsing.go_on(40, 8)
    os.kill(child, signal.SIGKILL)
    assert (told.given, told.left) == (0, 3)


def test_a_range_that_has_become_dearer_is_left(process: Process, collapsing: Collapsing) -> None:
    process.do("write")
    told = collapsing.go_on(40, 1)
    assert (told.given, told.paid) == (1, 0)


def test_a_tebibyte_to_be_plugged_in_has_no_ranges() -> None:
    with (
        running(sys.executable, "-c", PLUGGABLE, str(1024 * GIB)) as process,
        closing(Collapsing(process.guest)) as collapsing,
    ):
        survey = collapsing.survey()
        assert (sum(survey.split), survey.huge, survey.left) == (0, 0, 0)
        assert not collapsing.go_on(RANGE_PAGES, 8).more


@pytest.mark.parametrize(
    ("lacking", "sentence"),
    [
        ("sys_ptrace,-sys_admin,-perfmon", "not permitted to look into it (CAP_SYS_PTRACE)"),
        ("sys_admin", "not permitted to see frames (CAP_SYS_ADMIN)"),
        ("sys_nice", "not permitted to make huge pages of its memory (CAP_SYS_NICE)"),
    ],
)
def test_the_right_that_is_missing_is_named(lacking: str, sentence: str) -> None:
    """Newer kernels let who has CAP_PERFMON or CAP_SYS_ADMIN look, too; unsharing always takes CAP_SYS_PTRACE."""
    need(shutil.which("setpriv") is not None, "setpriv, of the package util-linux")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    with running(*nobody, *RAGGED) as process:
        words = (str(process.guest.pid), str(process.guest.start_ticks), "1.0")
        helper = (sys.executable, "-m", "ksmtuned_py.undo.collapse", *words)
        command = ("setpriv", f"--bounding-set=-{lacking}", *helper)
        done = subprocess.run(command, input="40 8\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"{sentence}\n")
