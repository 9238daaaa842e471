"""Pages of zeros are given back: really freed, without disk I/O, and only where that is so."""

import ctypes
import fcntl
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import pytest

from ksmtuned_py.cli.workload import Mix, workloads
from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.scanner.pagemap import PRIVATE, SWAPPED, page_count
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.sweep import Sweep
from ksmtuned_py.scanner.table import Table
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.units import MIB
from tests.scan.conftest import (
    SWAP_LABEL,
    SWAP_LOCK,
    ZRAM,
    rss_bytes,
    scanning,
    take_over_zram,
    turn,
    vmstat,
    wait_passes,
    wait_true,
    zero_pages,
)
from tests.support.ksmlock import LOCK
from tests.support.memcgroup import MemoryCgroup, memory_cgroup

HOLDER = str(Path(__file__).parent / "holder.py")
ZERO_MIB = 256
ZERO_PAGES = ZERO_MIB * MIB // 4096
END_SECONDS = 10.0
PROCESS_MADVISE, MADV_PAGEOUT = 440, 21
LEAST_ROUNDS, MOST_ROUNDS = 3, 15


class Holder:
    """A process that holds pages of zeros."""

    def __init__(
        self,
        name: str,
        mib: int,
        *more: str,
        cgroup: MemoryCgroup | None = None,
        program: Sequence[str] = (sys.executable, HOLDER),
    ) -> None:
        self.name = name
        command = [*program, str(mib), *more]
        self.process = subprocess.Popen(
            cgroup.starting(*command) if cgroup else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._answer() == "ready"

    @property
    def pid(self) -> int:
        return self.process.pid

    def wrong_pages(self) -> int:
        """Returns how many pages are wrong, after the process has read all of them."""
        assert self.process.stdin
        self.process.stdin.write("check\n")
        return int(self._answer())

    def __enter__(self) -> "Holder":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=END_SECONDS)  # the process ends with its standard input

    def _answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


@pytest.fixture
def nobody_else(root: None) -> Iterator[None]:
    """Holds the lock of all tests and benches that take or free much memory, so that none runs meanwhile."""
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def two_guests() -> Iterator[tuple[list[Holder], MemoryCgroup]]:
    with memory_cgroup("ksmtuned-py-zero") as cgroup, ExitStack() as stack:
        yield [stack.enter_context(Holder(name, ZERO_MIB, cgroup=cgroup)) for name in ("one", "two")], cgroup


def available_bytes() -> int:
    """Returns MemAvailable with what it leaves out: pages just freed, which wait in the lists of the CPUs."""
    listed = sum(map(int, re.findall(r"^ +count: +(\d+)$", Path("/proc/zoneinfo").read_text(), re.MULTILINE)))
    return int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1024 + listed * 4096


def written_sectors() -> int:
    """Returns the sectors written to the swap device since it was made."""
    return int((ZRAM / "stat").read_text().split()[6])


def freed_shares(guests: list[Holder], cgroup: MemoryCgroup, door: Door) -> tuple[float, float, float]:
    """Has all zero pages given back; returns the shares that RSS, the cgroup and MemAvailable show (1 = all)."""

    def now() -> tuple[int, int, int]:
        return sum(rss_bytes(one.pid) for one in guests), cgroup.used_bytes(), -available_bytes()

    before = now()
    with scanning(door, Scan(), guests) as backend:
        wait_true(lambda: (backend.counters().ksm_zero_pages or 0) >= 1.95 * ZERO_PAGES, "zero pages given back")
        turn(backend, "run", 0)
        assert backend.problems == ()
    rss, charge, available = (was - now for was, now in zip(before, now(), strict=True))
    size = 2 * ZERO_PAGES * 4096
    return rss / size, charge / size, available / size


def test_zero_pages_are_really_freed_and_come_back_as_zeros(nobody_else: None, zram_swap: None, no_ksm: Door) -> None:
    with two_guests() as (guests, cgroup):
        rises, swapped = list[float](), list[int]()
        # The rest of the machine takes and frees memory (5 % are 26 MiB): most rounds have to show it.
        # The kernel may page out a little of others meanwhile. Of ours it would be 131,072 pages a round.
        while len(rises) < LEAST_ROUNDS or (len(rises) < MOST_ROUNDS and median(rises) < 0.95):
            before = vmstat("pswpout") + written_sectors()
            rss, charge, available = freed_shares(guests, cgroup, no_ksm)
            swapped.append(vmstat("pswpout") + written_sectors() - before)
            assert min(rss, charge) >= 0.95
            assert [one.wrong_pages() for one in guests] == [0, 0]
            rises.append(available)
        assert median(rises) >= 0.95, rises
        assert median(swapped) < 0.01 * 2 * ZERO_PAGES, swapped
        assert max(swapped) < 0.1 * 2 * ZERO_PAGES, swapped


def test_a_guest_that_reports_its_free_pages_is_left_alone(zram_swap: None, no_ksm: Door) -> None:
    options = ("-device", "virtio-balloon-pci,free-page-reporting=on")
    with (
        Holder("web", 8, *options) as one,
        Holder("db", 8) as other,
        scanning(no_ksm, Scan(), [one, other]) as backend,
    ):
        wait_true(lambda: (backend.counters().ksm_zero_pages or 0) >= 1900, "zero pages given back")
        web, db = backend.guests
        assert (web["zero_pages_out"], db["zero_pages_out"] >= 1900) == (0, True)
        assert "free page reporting" in web["rest"]
        assert db["rest"] is None


def test_locked_memory_stays_and_all_other_zeros_go(zram_swap: None, no_ksm: Door) -> None:
    """The other zeros are the same guest's, on both sides of the locked memory, and those of later guests."""
    with Holder("keys", 8, "locked=32") as keys, Holder("web", 8) as web:
        zeros = [zero_pages([one], no_ksm) for one in (keys, web)]
        assert min(zeros) >= 2048
        with scanning(no_ksm, Scan(), [keys, web]) as backend:
            wait_true(lambda: (backend.counters().ksm_zero_pages or 0) >= sum(zeros) - 8, "zero pages given back")
            wait_passes(backend, 3)
            assert [one["zero_pages_out"] for one in backend.guests] == [zeros[0] - 8, zeros[1]]
            assert [one["rests"] for one in backend.guests] == [0, 0]
            assert backend.problems == ()
            assert [one.wrong_pages() for one in (keys, web)] == [0, 0]


def test_a_guest_whose_memory_is_all_locked_is_told_and_the_others_go(zram_swap: None, no_ksm: Door) -> None:
    with Holder("locked", 8, "locked=8192") as locked, Holder("web", 8) as web:
        zeros = [zero_pages([one], no_ksm) for one in (locked, web)]
        with scanning(no_ksm, Scan(), [locked, web], sleep_millisecs=500) as backend:
            wait_true(lambda: bool(backend.guests) and "locked" in (backend.guests[0]["rest"] or ""), "the reason")
            assert backend.problems == (f"locked: {backend.guests[0]['rest']}",)
            assert [key[0] for key in backend.refused] == [locked.pid]
            assert [one["zero_pages_out"] for one in backend.guests] == [zeros[0] - 2048, zeros[1]]


def test_a_swap_that_a_killed_test_has_left_is_taken_over_and_no_other(root: None) -> None:
    with SWAP_LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        take_over_zram()
        (ZRAM / "disksize").write_text(str(64 * MIB))
        subprocess.run(["mkswap", "--label", "somebody", "/dev/zram0"], check=True, capture_output=True)
        subprocess.run(["swapon", "/dev/zram0"], check=True)
        try:
            with pytest.raises((pytest.skip.Exception, pytest.fail.Exception), match="zram0 that is not in use"):
                take_over_zram()
        finally:
            subprocess.run(["swapoff", "/dev/zram0"], check=True)
        subprocess.run(["mkswap", "--label", SWAP_LABEL, "/dev/zram0"], check=True, capture_output=True)
        subprocess.run(["swapon", "/dev/zram0"], check=True)
        take_over_zram()
        assert "/dev/zram0" not in Path("/proc/swaps").read_text()


def test_a_pass_reads_nothing_that_was_swapped_out_since_it_was_listed(zram_swap: None) -> None:
    with workloads([Mix(unique_bytes=32 * MIB)], mergeable=False) as loads:
        with Process(Target(pid=loads[0].pid, start_ticks=0), Door()) as process:
            steps = Sweep().guest(process, Table(), PRIVATE, smart=False)
            for _ in zip(range(20), steps, strict=False):
                pass
            for start, end in process.ranges():
                swap_out(process, start, end)
            swapped = swapped_pages(process)
            assert swapped > 0.9 * 32 * 256
            for _ in steps:
                pass
            assert swapped_pages(process) >= swapped
        assert loads[0].wrong_pages() == 0


def swap_out(process: Process, start: int, end: int) -> None:
    """Swaps the memory out, as when it is needed for something else."""
    advise = ctypes.CDLL(None).syscall
    vector = (ctypes.c_uint64 * 2)(start, end - start)
    advise(PROCESS_MADVISE, process.pidfd, vector, ctypes.c_size_t(1), MADV_PAGEOUT, 0)


def swapped_pages(process: Process) -> int:
    return sum(page_count(process.runs(start, end, SWAPPED)) for start, end in process.ranges())


def test_without_swap_the_reason_is_said_and_nothing_happens(root: None, no_ksm: Door, tmp_path: Path) -> None:
    (tmp_path / "root/proc").unlink()
    (tmp_path / "root/proc").mkdir()
    (tmp_path / "root/proc/swaps").write_text("Filename Type Size Used Priority\n")
    (tmp_path / "root/proc/meminfo").symlink_to("/proc/meminfo")
    with Holder("web", 8) as one:
        (tmp_path / f"root/proc/{one.pid}").symlink_to(f"/proc/{one.pid}")
        with scanning(no_ksm, Scan(), [one]) as backend:
            wait_passes(backend, 3)
            assert "no swap with room" in backend.problems[0]
            assert backend.counters().ksm_zero_pages == 0
            assert backend.guests[0]["saveable_pages"] >= 2048


def test_a_guest_that_touches_its_zero_pages_again_is_left_alone_for_a_while(zram_swap: None, no_ksm: Door) -> None:
    with Holder("web", 8) as one, scanning(no_ksm, Scan(), [one], sleep_millisecs=100) as backend:
        wait_true(lambda: (backend.counters().ksm_zero_pages or 0) > 2000, "zero pages given back")
        one.wrong_pages()  # the process reads all pages
        wait_true(lambda: backend.guests[0]["rests"] > 0, "the back-off")
        wait_true(lambda: (backend.counters().ksm_zero_pages or 0) > 2000, "zero pages given back once more")


def test_report_mode_counts_and_touches_nothing(zram_swap: None, no_ksm: Door) -> None:
    with Holder("web", 16) as one, scanning(no_ksm, Scan(reclaim="report"), [one]) as backend:
        wait_passes(backend, 3)
        assert backend.counters().saved_pages == 0
        assert backend.guests[0]["saveable_pages"] >= 4096
