"""Guests are found on made-up trees, whatever happens to their processes, and among this machine's own."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.config import Config, InForce
from ksmtuned_py.door import Door
from ksmtuned_py.guests.discovery import ACCOUNTS_PER_LOOK, SPARE_DESCRIPTORS, GuestFinder
from ksmtuned_py.guests.roster import Roster
from ksmtuned_py.guests.rounds import Rounds
from ksmtuned_py.model import Guest, GuestKsm
from tests.support.need import need
from tests.support.process import wait_for
from tests.support.procs import KSM_STAT_6_1, add_process, ksm_stat, remove_process
from tests.support.trees import FakeGuest, make_fake_tree, put

UUID = "0c5f4b6e-6ef0-4d2c-9d3b-6f0a5ad1a111"
WEB = ["/usr/bin/qemu-system-x86_64", "-name", "guest=web,debug-threads=on", "-uuid", UUID]
MAY_MERGE = ksm_stat(rmap=10, merging=8, profit=32128, mergeable="yes")


@pytest.fixture
def finder(tmp_path: Path) -> Iterator[GuestFinder]:
    """The finder on the tree below tmp_path."""
    with closing(GuestFinder(Door(str(tmp_path)), ["my-vmm*"])) as finder:
        yield finder


def names(guests: tuple[Guest, ...]) -> list[str]:
    return [guest.name for guest in guests]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def descriptors_to_spare(most: int) -> Iterator[None]:
    """Allow only so many more descriptors for guests, for the length of a with block."""
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as undo:
        while (lowest_free := os.open("/", os.O_RDONLY)) < highest:  # what an earlier test has closed below others
            undo.callback(os.close, lowest_free)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + most + SPARE_DESCRIPTORS, limits[1]))
        undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        yield


def test_a_guest_with_all_that_is_known_of_it(tmp_path: Path, finder: GuestFinder) -> None:
    add_process(tmp_path, 70, WEB, start_ticks=12345, account=MAY_MERGE, resident_pages=50)
    assert finder.find(0) == (
        Guest(
            pid=70,
            start_ticks=12345,
            name="web",
            kind="qemu",
            evidence=("program",),
            uuid=UUID,
            virtual_bytes=100 * resource.getpagesize(),
            rss_bytes=50 * resource.getpagesize(),
            ksm=GuestKsm(rmap_items=10, merging_pages=8, profit_bytes=32128, mergeable=True),
        ),
    )
    assert finder.problems == ()


def test_an_empty_proc_holds_no_guest(finder: GuestFinder) -> None:
    assert finder.find(0) == ()


def test_hypervisors_patterns_and_others(tmp_path: Path, finder: GuestFinder) -> None:
    add_process(tmp_path, 1, ["/sbin/init"])
    add_process(tmp_path, 2, [], comm="kvm", resident_pages=0)  # a kernel thread has no memory
    add_process(tmp_path, 30, ["cloud-hypervisor", "--api-socket", "/run/db.sock"])
    add_process(tmp_path, 31, ["/opt/my-vmm-1"])
    add_process(tmp_path, 32, ["web"], comm="qemu:web")
    assert [(guest.name, guest.kind) for guest in finder.find(0)] == [
        ("db", "cloud-hypervisor"),
        ("my-vmm-1-31", "pattern"),
        ("qemu:web-32", "qemu"),
    ]


def test_guests_come_and_go(tmp_path: Path, finder: GuestFinder) -> None:
    add_process(tmp_path, 70, WEB)
    assert names(finder.find(0)) == ["web"]
    add_process(tmp_path, 71, ["qemu-kvm", "-name", "db"])
    assert names(finder.find(1)) == ["web", "db"]
    remove_process(tmp_path, 70)
    assert names(finder.find(2)) == ["db"]


def test_accounts_are_read_anew(tmp_path: Path, finder: GuestFinder) -> None:
    directory = add_process(tmp_path, 70, WEB)
    finder.find(0)
    (directory / "ksm_stat").write_text(ksm_stat(merging=5))
    (directory / "statm").write_text("100 99 0 0 0 0 0\n")
    [guest] = finder.find(1)
    assert guest.ksm is not None
    assert (guest.ksm.merging_pages, guest.rss_bytes) == (5, 99 * resource.getpagesize())


@pytest.mark.parametrize("descriptors", [0, 100])
def test_a_reused_pid_is_another_guest(tmp_path: Path, finder: GuestFinder, descriptors: int) -> None:
    """That holds with a descriptor on /proc/PID, and without one, when none can be spared."""
    with descriptors_to_spare(descriptors):
        add_process(tmp_path, 70, WEB, start_ticks=1000, account=MAY_MERGE)
        [web] = finder.find(0)
        for now_seconds in range(1, 10):  # long enough for its PID to be looked at by turns only
            assert finder.find(now_seconds) == (web,)
        add_process(tmp_path, 70, ["qemu-kvm", "-name", "db"], start_ticks=2000, account=ksm_stat(rmap=1))
        [db] = finder.find(10)
        assert (db.name, db.uuid, db.ksm) == ("db", "", GuestKsm(rmap_items=1, mergeable=False))
        assert db.key != web.key
        add_process(tmp_path, 70, ["/bin/bash"], start_ticks=3000)
        assert finder.find(11) == ()


class TurnoverDoor(Door):
    """A /proc in which guest 70 ends while it is being read, and another process gets its PID."""

    def hold(self, relative: str) -> int:
        add_process(Path(self.root), 70, ["qemu-kvm", "-name", "db"], start_ticks=2000)
        return super().hold(relative)


def test_a_pid_reused_within_a_look_is_not_mixed_up(tmp_path: Path) -> None:
    add_process(tmp_path, 70, WEB, start_ticks=1000)
    with closing(GuestFinder(TurnoverDoor(str(tmp_path)))) as finder:
        assert finder.find(0) == ()
        [db] = finder.find(1)
        assert (db.name, db.start_ticks) == ("db", 2000)


def test_a_wrapper_that_execs_under_its_own_name(tmp_path: Path, finder: GuestFinder) -> None:
    directory = add_process(tmp_path, 70, ["/bin/sh", "/usr/bin/qemu-kvm"], comm="qemu-kvm")
    assert names(finder.find(0)) == ["qemu-kvm-70"]
    (directory / "cmdline").write_text("/usr/libexec/qemu-kvm\0-name\0db\0")
    assert names(finder.find(1)) == ["db"]


def test_with_many_guests_their_accounts_take_turns(tmp_path: Path, finder: GuestFinder) -> None:
    pids = range(100, 100 + 2 * ACCOUNTS_PER_LOOK)
    directories = [add_process(tmp_path, pid, ["qemu-kvm"]) for pid in pids]
    assert all(guest.ksm is not None for guest in finder.find(0))  # all new guests are read at once
    for directory in directories:
        (directory / "ksm_stat").write_text(MAY_MERGE)
    for look in (1, 2):
        accounts = [guest.ksm and guest.ksm.merging_pages for guest in finder.find(look)]
        assert accounts.count(8) == look * ACCOUNTS_PER_LOOK


def test_whoever_may_merge_is_a_guest_from_when_it_asks(tmp_path: Path, finder: GuestFinder) -> None:
    directory = add_process(tmp_path, 70, ["/usr/bin/redis-server"])
    assert finder.find(0) == ()
    (directory / "ksm_stat").write_text(MAY_MERGE)
    [guest] = finder.find(1)
    assert (guest.name, guest.kind) == ("redis-server-70", "mergeable")
    (directory / "ksm_stat").write_text(ksm_stat())
    assert finder.find(2) == ()


def test_a_process_that_asks_late_is_found_by_the_round_over_all(tmp_path: Path, finder: GuestFinder) -> None:
    directory = add_process(tmp_path, 70, ["/usr/bin/redis-server"])
    for now_seconds in range(10):
        assert finder.find(now_seconds) == ()
    (directory / "ksm_stat").write_text(MAY_MERGE)
    assert finder.find(59) == ()
    assert names(finder.find(60)) == ["redis-server-70"]


def test_who_is_put_into_a_cgroup_late_is_found_by_the_round_over_all(tmp_path: Path) -> None:
    make_fake_tree(tmp_path, guests=[FakeGuest(pid=70, name="", comm="vmm", command=("vmm",), mergeable=False)])
    put(tmp_path, "proc/70/cgroup", "0::/\n")
    with closing(GuestFinder(Door(str(tmp_path)), cgroup_patterns=["*/my-vmm@*.service"])) as finder:
        assert names(finder.find(0)) == []
        put(tmp_path, "proc/70/cgroup", "0::/system.slice/my-vmm@web.service\n")
        assert names(finder.find(1)) == ["vmm-70"]
        put(tmp_path, "proc/70/cgroup", "0::/\n")
        assert [len(finder.find(now)) for now in (2, 62, 122)][-1] == 0


def test_merging_alone_makes_no_guest_when_the_config_says_so(tmp_path: Path) -> None:
    add_process(tmp_path, 70, ["/usr/bin/redis-server"], account=MAY_MERGE)
    with closing(GuestFinder(Door(str(tmp_path)), mergeable=False)) as finder:
        assert finder.find(0) == ()


def test_linux_6_1_with_its_file_beside(tmp_path: Path, finder: GuestFinder) -> None:
    directory = add_process(tmp_path, 70, ["/bin/worker"], account=ksm_stat(KSM_STAT_6_1, rmap=64))
    (directory / "ksm_merging_pages").write_text("3\n")
    [guest] = finder.find(0)
    profit_bytes = 3 * resource.getpagesize() - 64 * 64
    assert guest.kind == "mergeable"
    assert guest.ksm == GuestKsm(rmap_items=64, merging_pages=3, profit_bytes=profit_bytes)


def test_a_guest_whose_account_is_not_ours_to_read(tmp_path: Path, finder: GuestFinder) -> None:
    directory = add_process(tmp_path, 70, WEB, account=None)
    (directory / "ksm_stat").mkdir()  # it can be opened, but not read, even by root
    add_process(tmp_path, 71, ["qemu-kvm"], account=None)  # Linux before 6.1
    assert [guest.ksm for guest in finder.find(0)] == [None, None]
    assert finder.problems == ()


def test_garbage_is_a_problem_to_tell_of(tmp_path: Path, finder: GuestFinder) -> None:
    add_process(tmp_path, 70, WEB, account="nonsense\n")
    broken = add_process(tmp_path, 71, ["qemu-kvm", "-name", "db"])
    (broken / "stat").write_text("71 nonsense\n")
    assert [(guest.name, guest.ksm) for guest in finder.find(0)] == [("web", None)]
    assert [problem.partition(": ")[0] for problem in finder.problems] == [
        str(tmp_path / "proc/71/stat"),
        str(tmp_path / "proc/70/ksm_stat"),
    ]


def test_a_zombie_is_no_guest(tmp_path: Path, finder: GuestFinder) -> None:
    directory = add_process(tmp_path, 70, WEB)
    assert names(finder.find(0)) == ["web"]
    (directory / "statm").write_text("0 0 0 0 0 0 0\n")
    assert finder.find(1) == ()
    assert finder.find(2) == ()


def test_a_program_started_after_the_fork_is_found_at_the_next_look(tmp_path: Path, finder: GuestFinder) -> None:
    add_process(tmp_path, 70, ["/usr/sbin/libvirtd"])
    assert finder.find(0) == ()
    add_process(tmp_path, 70, WEB)  # the same process: the same start
    assert names(finder.find(1)) == ["web"]
    add_process(tmp_path, 70, ["/bin/sh", "/etc/qemu-ifup"])  # a child of QEMU's that had its name until now
    assert finder.find(2) == ()


def test_a_late_exec_is_found_when_it_is_heeded(tmp_path: Path, finder: GuestFinder) -> None:
    add_process(tmp_path, 70, ["/bin/sh", "start-guest"])
    for now_seconds in range(10):
        finder.find(now_seconds)
    add_process(tmp_path, 70, WEB)
    assert finder.find(10) == ()
    assert finder.heed({70, 71})
    assert names(finder.find(11)) == ["web"]


def test_only_guest_programs_are_worth_a_look(tmp_path: Path, finder: GuestFinder) -> None:
    add_process(tmp_path, 70, WEB)
    add_process(tmp_path, 71, ["/bin/sh"])
    add_process(tmp_path, 72, ["/opt/a-vmm-with-a-long-name"])
    add_process(tmp_path, 73, ["/usr/bin/cloud-hypervisor"])
    with closing(GuestFinder(Door(str(tmp_path)), ["a-vmm-*-name"])) as finder:
        assert [pid for pid in range(69, 74) if finder.is_guest_program(pid)] == [70, 72, 73]
        assert not finder.heed({71})


def test_known_writers_of_the_knobs_are_suspects(tmp_path: Path, finder: GuestFinder) -> None:
    add_process(tmp_path, 70, ["/bin/bash", "/usr/sbin/ksmtuned"], comm="ksmtuned")
    add_process(tmp_path, 71, ["/usr/bin/python3", "-Es", "/usr/sbin/tuned"], comm="python3")
    suspects = []
    finder.find(0)
    suspects.append(finder.suspects)
    remove_process(tmp_path, 70)
    finder.find(1)
    suspects.append(finder.suspects)
    assert suspects == [("ksmtuned", "tuned"), ("tuned",)]


def test_descriptors_are_let_go_of(tmp_path: Path) -> None:
    before = open_descriptors()
    for pid in range(100, 110):
        add_process(tmp_path, pid, ["qemu-kvm"])
    with closing(GuestFinder(Door(str(tmp_path)))) as finder:
        finder.find(0)
        assert open_descriptors() == before + 10
        remove_process(tmp_path, 100)  # gone
        add_process(tmp_path, 101, ["/bin/sh"], start_ticks=7)  # another one
        finder.find(1)
        assert open_descriptors() == before + 8
    assert open_descriptors() == before


def test_short_of_descriptors_it_reads_all_guests_all_the_same(tmp_path: Path, finder: GuestFinder) -> None:
    for pid in range(100, 110):
        add_process(tmp_path, pid, ["qemu-kvm"], account=MAY_MERGE)
    with descriptors_to_spare(4):
        for look in range(3):
            guests = finder.find(look)
            assert [guest.ksm and guest.ksm.merging_pages for guest in guests] == [8] * 10
            [problem] = finder.problems
            assert problem.startswith("6 of 10 guests cost more to read: RLIMIT_NOFILE is ")
    finder.find(3)
    assert not finder.problems


@given(st.lists(st.sets(st.integers(1, 30)), max_size=40))
def test_rounds_miss_nobody(listings: list[set[int]]) -> None:
    """Every process is due when it is new. One that stays is due again in every round."""
    rounds, known, last_due = Rounds(every_seconds=10), set[int](), dict[int, int]()
    for now, pids in zip(count(), listings, strict=False):
        due = rounds.due(pids, pids - known, now)
        assert pids - known <= due <= pids
        last_due = {pid: now if pid in due else last_due[pid] for pid in pids}
        assert all(now - then <= 10 for then in last_due.values())
        known = pids


def test_a_round_over_very_many_is_cut_into_looks() -> None:
    rounds, pids = Rounds(every_seconds=60), set(range(1, 2501))
    for now in range(Rounds.YOUNG_LOOKS):
        assert rounds.due(pids, pids if now == 0 else set(), now) == pids
    assert rounds.due(pids, set(), 30) == set()
    assert [len(rounds.due(pids, set(), now)) for now in (60, 61, 62, 63)] == [1000, 1000, 500, 0]


def test_no_round_begins_before_the_last_one_has_been_at_everybody() -> None:
    rounds, pids = Rounds(every_seconds=1), set(range(1, 5 * Rounds.PER_LOOK + 1))
    for now in range(Rounds.YOUNG_LOOKS):
        rounds.due(pids, pids if now == 0 else set(), 0)
    looks = [rounds.due(pids, set(), now) for now in range(1, 11)]
    assert set().union(*looks[:5]) == set().union(*looks[5:]) == pids


@contextmanager
def running(program: Path | str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def found(finder: GuestFinder, pid: int) -> list[Guest]:
    return [guest for guest in finder.find(0) if guest.pid == pid]


def test_a_real_process_comes_and_goes(tmp_path: Path) -> None:
    program = shutil.copy("/bin/sleep", tmp_path / "qemu-system-x86_64")
    with closing(GuestFinder(Door())) as finder, running(program, "60") as process:
        [guest] = wait_for(lambda: found(finder, process.pid), 5, "guest")
        assert (guest.name, guest.kind) == (f"qemu-system-x86_64-{process.pid}", "qemu")
        assert guest.rss_bytes > 0
        assert guest.start_ticks > 0
        process.kill()
        wait_for(lambda: not found(finder, process.pid), 5, "end of the guest, although nobody waited for it")


MERGEABLE = """
import ctypes, mmap, sys
memory = mmap.mmap(-1, 4 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
print(ctypes.CDLL(None).madvise(ctypes.c_void_p(address), ctypes.c_size_t(len(memory)), 12), flush=True)
sys.stdin.read()
"""


def test_a_real_process_that_asked_for_merging() -> None:
    account = Path("/proc/self/ksm_stat")
    need(account.exists() and "ksm_mergeable" in account.read_text(), "a kernel that says ksm_mergeable")
    with closing(GuestFinder(Door())) as finder, running(sys.executable, "-c", MERGEABLE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"0\n"
        [guest] = wait_for(lambda: found(finder, process.pid), 5, "guest")
        assert guest.kind == "mergeable"
        assert guest.ksm is not None
        assert guest.ksm.mergeable


def test_neither_this_process_nor_kernel_threads_are_guests() -> None:
    kthreadd = Path("/proc/2/comm")
    need(kthreadd.exists() and kthreadd.read_text() == "kthreadd\n", "the host's own PID namespace")
    kernel_threads = {thread.pid for thread in psutil.Process(2).children()}
    with closing(GuestFinder(Door(), ["*"])) as finder:
        pids = {guest.pid for guest in finder.find(0)}
    assert os.getppid() in pids
    assert os.getpid() not in pids
    assert not pids & kernel_threads


def test_a_guest_of_which_nothing_has_changed_is_not_made_anew(tmp_path: Path) -> None:
    door = Door(str(make_fake_tree(tmp_path, guests=[FakeGuest(pid=1001, name="web")], kernel="6.12")))
    put(tmp_path, "proc/1001/cgroup", "0::/machine.slice/machine-qemu-1-web.scope\n")
    finder = GuestFinder(door)
    try:
        roster = Roster(door, finder, InForce(Config()))
        first, second = roster.find(100.0), roster.find(101.0)
        put(tmp_path, "proc/1001/cgroup", "0::/machine.slice/machine-qemu-2-web.scope\n")
        third = roster.find(102.0)
    finally:
        finder.close()
    assert second[0] is first[0]
    assert third[0].cgroup == "/machine.slice/machine-qemu-2-web.scope"
