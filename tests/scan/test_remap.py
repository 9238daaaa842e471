"""Equal pages are shared without KSM, and a guest never notices: not by its content, and not when we are killed."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from ksmtuned_py.backends.scan import ScanBackend
from ksmtuned_py.cli.workload import Mix, Workload, workloads
from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.units import MIB
from tests.scan.conftest import PASS_SECONDS, guest, scanning, turn, wait_passes, wait_true
from tests.scan.forkedworkers import forked_workers
from tests.scan.writers import runs_freely, writers
from tests.support.process import wait_for

REMAP = Scan(reclaim="remap", remap_guests=("*",), remap_least_mib=8)
EQUAL_BYTES = 16 * MIB
EQUAL_PAGES = EQUAL_BYTES // 4096


def pss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/smaps_rollup").read_text().split("Pss:")[1].split()[0]) * 1024


def test_equal_pages_are_really_shared_and_given_back(root: None, no_ksm: Door) -> None:
    mix = Mix(equal_bytes=EQUAL_BYTES, unique_bytes=8 * MIB)
    with workloads([mix] * 3, mergeable=False) as loads:
        before = sum(pss_bytes(load.pid) for load in loads)
        with scanning(no_ksm, REMAP, loads) as backend:
            wait_true(lambda: backend.counters().pages_sharing >= 0.95 * 2 * EQUAL_PAGES, "shared pages")
            assert [load.wrong_pages() for load in loads] == [0, 0, 0]
            merged = sum(pss_bytes(load.pid) for load in loads)
            assert before - merged >= 0.9 * 2 * EQUAL_BYTES
            loads[0].spoil(1000)
            wait_passes(backend, 2)
            assert [load.wrong_pages() for load in loads] == [0, 0, 0]
            turn(backend, "run", 2)
            wait_true(lambda: backend.counters().pages_sharing == 0, "pages given back")
            wait_true(lambda: store_bytes(backend) == 0, "memory of what was shared")
            turn(backend, "run", 0)
        assert [load.wrong_pages() for load in loads] == [0, 0, 0]
        assert all(" /memfd:ksmtuned-py-pages" not in maps(load) for load in loads)


def maps(load: Workload) -> str:
    return Path(f"/proc/{load.pid}/maps").read_text()


def store_bytes(backend: ScanBackend) -> int:
    """Returns the memory that the worker's stores take for guests to share."""
    found = {}
    for file in Path(f"/proc/{backend.worker_pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since the directory was listed
            if "ksmtuned-py-pages" in str(file.readlink()):
                found[file.stat().st_ino] = file.stat().st_blocks * 512
    return sum(found.values())


def test_what_ended_guests_have_shared_is_freed_also_while_nothing_is_scanned(root: None, no_ksm: Door) -> None:
    with (
        workloads([Mix(equal_bytes=EQUAL_BYTES)] * 2, mergeable=False) as loads,
        scanning(no_ksm, REMAP, loads) as backend,
    ):
        wait_true(lambda: backend.counters().pages_sharing >= 0.95 * EQUAL_PAGES, "shared pages")
        turn(backend, "run", 0)
        assert store_bytes(backend) >= 0.95 * EQUAL_BYTES
        for load in loads:
            load.stop()
        wait_true(lambda: store_bytes(backend) == 0, "memory of what was shared")


def test_giving_back_goes_on_when_guests_come_and_go_meanwhile(root: None, no_ksm: Door) -> None:
    with (
        workloads([Mix(equal_bytes=EQUAL_BYTES)] * 3, mergeable=False) as loads,
        scanning(no_ksm, REMAP, loads) as backend,
    ):
        wait_true(lambda: backend.counters().pages_sharing >= 0.95 * 2 * EQUAL_PAGES, "shared pages")
        turn(backend, "run", 2)
        for _ in range(10):
            backend.watch([guest(load) for load in loads[:2]])
            time.sleep(0.02)
            backend.watch([guest(load) for load in loads])
        wait_true(lambda: backend.counters().pages_sharing == 0, "pages given back")
        assert [load.wrong_pages() for load in loads] == [0, 0, 0]


def test_threads_that_write_all_the_time_lose_no_byte(root: None, no_ksm: Door) -> None:
    with writers(2, 32) as guests, scanning(no_ksm, REMAP, guests) as backend:
        wait_true(lambda: backend.counters().pages_sharing > 2500, "shared pages")
        begun = [one.check() for one in guests]

        def have_written() -> bool:
            found = [one.check() for one in guests]
            assert [one["wrong"] for one in found] == [0, 0]
            written = sum(late["writes"] - early["writes"] for late, early in zip(found, begun, strict=True))
            beats = [late["beats"] - early["beats"] for late, early in zip(found, begun, strict=True)]
            return written >= 10_000 and min(beats) > 100

        wait_for(have_written, PASS_SECONDS, "10,000 writes", every_seconds=0.2)


def test_fifty_kills_of_the_worker_while_it_merges(root: None, no_ksm: Door) -> None:
    chance = random.Random(1)
    with forked_workers(), writers(2) as guests:
        for _ in range(50):
            with scanning(no_ksm, REMAP, guests, sleep_millisecs=0) as backend:
                time.sleep(chance.uniform(0.1, 0.4))
                os.kill(backend.worker_pid, signal.SIGKILL)
                time.sleep(0.02)
                assert all(runs_freely(one) for one in guests)
            found = [one.check() for one in guests]
            assert [one["wrong"] for one in found] == [0, 0]
        again = [one.check() for one in guests]
        assert all(late["writes"] > early["writes"] for late, early in zip(again, found, strict=True))


def test_somebody_else_stops_and_continues_the_guest_all_the_time(root: None, no_ksm: Door) -> None:
    chance = random.Random(3)
    with writers(1) as guests, scanning(no_ksm, REMAP, guests, sleep_millisecs=0) as backend:
        wait_true(lambda: backend.counters().pages_sharing > 250, "shared pages")
        for _ in range(25):
            for _ in range(20):
                os.kill(guests[0].pid, signal.SIGSTOP)
                time.sleep(chance.choice([0, 0, 0.0005, 0.003, 0.02]))
                os.kill(guests[0].pid, signal.SIGCONT)
                time.sleep(chance.uniform(0, 0.02))
            assert guests[0].check()["wrong"] == 0  # the guest answers, so it was not left stopped
        assert backend.restarts == 0


def test_two_workers_at_once_do_not_spoil_each_others_pages(root: None, no_ksm: Door) -> None:
    with (
        writers(2) as guests,
        scanning(no_ksm, REMAP, guests) as one,
        scanning(no_ksm, REMAP, guests) as other,
    ):
        begun = time.monotonic()

        def both_have_worked() -> bool:
            assert [guest.check()["wrong"] for guest in guests] == [0, 0]
            time.sleep(0.3)
            sharing = one.counters().pages_sharing + other.counters().pages_sharing
            return sharing > 250 and time.monotonic() - begun > 6

        wait_true(both_have_worked, "shared pages")
        assert one.restarts + other.restarts == 0


def test_what_a_killed_worker_has_merged_is_taken_over_by_the_next(root: None, no_ksm: Door) -> None:
    with (
        workloads([Mix(equal_bytes=EQUAL_BYTES)] * 2, mergeable=False) as loads,
        scanning(no_ksm, REMAP, loads) as backend,
    ):
        wait_true(lambda: backend.counters().pages_sharing >= 0.95 * EQUAL_PAGES, "shared pages")
        wait_passes(backend, 3)  # nothing is left to be merged by the next one
        os.kill(backend.worker_pid, signal.SIGKILL)
        wait_true(lambda: bool(backend.counters()) and backend.restarts == 1, "the end of the worker")
        wait_passes(backend, 3)
        wait_true(lambda: backend.counters().pages_sharing >= 0.95 * EQUAL_PAGES, "the next worker")
        assert any("has died 1 time; last: it was killed by signal 9" in problem for problem in backend.problems)
        assert [load.wrong_pages() for load in loads] == [0, 0]
        turn(backend, "run", 2)
        wait_true(lambda: backend.counters().pages_sharing == 0, "pages given back")
        assert [load.wrong_pages() for load in loads] == [0, 0]


def test_guests_that_end_while_they_are_scanned_do_no_harm(root: None, no_ksm: Door) -> None:
    with (
        workloads([Mix(equal_bytes=16 * MIB)] * 4, mergeable=False) as loads,
        scanning(no_ksm, REMAP, loads) as backend,
    ):
        for load in loads[:3]:
            time.sleep(0.3)
            load.stop()
        wait_passes(backend, 2)
        assert loads[3].wrong_pages() == 0
        assert backend.restarts == 0


def test_only_guests_of_the_patterns_are_remapped(root: None, no_ksm: Door) -> None:
    settings = REMAP.model_copy(update={"remap_guests": ("load-[12]",)})
    with (
        workloads([Mix(equal_bytes=16 * MIB)] * 3, mergeable=False) as loads,
        scanning(no_ksm, settings, loads) as backend,
    ):
        wait_true(lambda: backend.counters().pages_sharing >= 4000, "shared pages")
        assert " /memfd:ksmtuned-py" not in maps(loads[2])


def test_guests_of_different_groups_share_nothing(root: None, no_ksm: Door) -> None:
    settings = REMAP.model_copy(update={"groups": ("load-1", "load-2")})
    with (
        workloads([Mix(equal_bytes=16 * MIB)] * 2, mergeable=False) as loads,
        scanning(no_ksm, settings, loads) as backend,
    ):
        wait_passes(backend, 4)
        assert backend.counters().pages_sharing == 0
