"""The backend as the control loop sees it: ksmd's knobs and counters, and a worker that may die."""

import os
import signal
import time

from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.model import KnobName, KnobValue, Write, WriteStatus
from ksmtuned_py.units import MIB
from ksmtuned_py.workload import Mix, workloads
from tests.scan.conftest import scanning, turn, wait_passes, wait_true

REPORT = Scan(reclaim="report")
MIX = Mix(unique_bytes=16 * MIB, zero_bytes=4 * MIB)


def test_it_counts_like_ksmd(root: None, no_ksm: Door) -> None:
    with workloads([MIX] * 2, mergeable=False) as loads, scanning(no_ksm, REPORT, loads) as backend:
        wait_passes(backend, 3)
        found = backend.counters()
        pages = 2 * 20 * 256
        assert found.pages_unshared >= pages
        assert found.pages_volatile < 0.1 * pages
        assert found.pages_scanned is not None
        assert found.pages_scanned >= 3 * pages
        assert found.saved_pages == 0
        assert backend.table_bytes <= 32 * (found.pages_unshared + found.pages_volatile)
        assert (backend.scanner_cpu_seconds() or 0) > 0


def test_what_does_not_change_is_skipped_with_smart_scan(root: None, no_ksm: Door) -> None:
    with workloads([MIX], mergeable=False) as loads, scanning(no_ksm, REPORT, loads) as backend:
        turn(backend, "smart_scan", 1)
        wait_true(lambda: (backend.counters().pages_skipped or 0) > 5000, "skipped pages")


def test_run_0_stops_it_and_a_small_batch_is_a_small_batch(root: None, no_ksm: Door) -> None:
    with (
        workloads([MIX], mergeable=False) as loads,
        scanning(no_ksm, REPORT, loads, pages_to_scan=256, sleep_millisecs=50) as backend,
    ):
        wait_true(lambda: (backend.counters().pages_scanned or 0) > 512, "scanned pages")
        turn(backend, "pages_to_scan", 100)  # less than a step
        begun, scanned = time.monotonic(), backend.counters().pages_scanned or 0
        time.sleep(2)
        batches = (time.monotonic() - begun) / 0.05 + 4  # a few that were not told of yet
        assert 1000 < (backend.counters().pages_scanned or 0) - scanned <= batches * 100 + 256
        turn(backend, "run", 0)
        time.sleep(0.2)
        stopped, cpu_seconds = backend.counters().pages_scanned, backend.scanner_cpu_seconds() or 0
        time.sleep(2)
        assert backend.counters().pages_scanned == stopped
        assert (backend.scanner_cpu_seconds() or 0) - cpu_seconds < 0.2  # it waits, and does not look at the clock


def test_knobs_it_does_not_have_and_values_out_of_range_are_refused(root: None, no_ksm: Door) -> None:
    with scanning(no_ksm, REPORT, []) as backend:
        wrong: list[tuple[KnobName, KnobValue]] = [
            ("run", 3), ("smart_scan", 2), ("pages_to_scan", -1), ("use_zero_pages", 1), ("advisor_mode", "none"),
        ]  # fmt: skip
        for name, value in wrong:
            assert backend.write(Write(knob=name, old=0, new=value)).status is WriteStatus.REFUSED
        assert backend.knobs().get("use_zero_pages") is None
        assert backend.knobs().run == 1


def test_a_worker_that_dies_is_reported_and_replaced_with_the_same_knobs(root: None, no_ksm: Door) -> None:
    with workloads([MIX], mergeable=False) as loads, scanning(no_ksm, REPORT, loads) as backend:
        wait_passes(backend, 2)
        before, first = backend.counters(), backend.worker_pid
        os.kill(first, signal.SIGKILL)
        wait_true(lambda: backend.counters().full_scans > before.full_scans + 1, "passes of the next worker")
        assert backend.worker_pid not in (0, first)
        assert (backend.counters().pages_scanned or 0) > (before.pages_scanned or 0)
        assert backend.problems[0] == "the scan worker has died 1 times; last: signal 9"


def test_guests_come_and_go(root: None, no_ksm: Door) -> None:
    with workloads([MIX], mergeable=False) as loads, scanning(no_ksm, REPORT, loads) as backend:
        wait_passes(backend, 1)
        backend.watch([])
        wait_true(lambda: backend.guests == [], "end of the guests")
        begun = backend.counters().full_scans
        time.sleep(0.3)
        assert backend.counters().full_scans <= begun + 1
