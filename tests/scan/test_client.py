"""The backend as the control loop sees it: ksmd's knobs and counters, and a worker that may die."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

import pytest

from ksmtuned_py.backends import scan, scanlink
from ksmtuned_py.backends.scan import ScanBackend
from ksmtuned_py.backends.scanlink import WorkerPatience, for_scanner
from ksmtuned_py.cli.workload import Mix, workloads
from ksmtuned_py.config import Config, Guests, InForce, Scan
from ksmtuned_py.daemon.machine import scan_machine
from ksmtuned_py.door import Door
from ksmtuned_py.model import Guest, GuestKey, KnobName, KnobValue, Snapshot, Write, WriteStatus
from ksmtuned_py.scanner.mark import NOBODY
from ksmtuned_py.scanner.process import Gone
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.scanner import Scanner
from ksmtuned_py.scanner.sweep import Sweep
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.units import MIB
from tests.scan.conftest import guest, scanning, turn, wait_passes, wait_true
from tests.support.process import wait_for

REPORT = Scan(reclaim="report")
REPORT_ONLY = InForce(Config(scan=REPORT))
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
        batches = (time.monotonic() - begun) / 0.05 + 4  # a few that the worker has not told of yet
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
        died = "the scan worker has died 1 time; last: it was killed by signal 9 (Killed); was it the OOM killer?"
        assert backend.problems[0] == died


def test_a_worker_that_fails_is_reported_by_its_exit_code(root: None, tmp_path: Path) -> None:
    """The exit code is told, not the signal that might have ended the worker had it not ended by itself."""
    (tmp_path / "proc").mkdir()  # there is no meminfo in it
    with closing(ScanBackend(REPORT_ONLY, Door(str(tmp_path)))) as backend:
        backend.watch([Guest(pid=1, start_ticks=0, name="one", kind="")])
        turn(backend, "run", 1)
        wait_true(lambda: bool(backend.problems), "end of a worker")
        assert "it ended with exit code 1" in backend.problems[0]


def test_workers_that_die_at_once_are_begun_ever_later(root: None, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    with closing(ScanBackend(REPORT_ONLY, Door(str(tmp_path)))) as backend:
        backend.watch([Guest(pid=1, start_ticks=0, name="one", kind="")])
        turn(backend, "run", 1)
        ends = [wait_for(partial(_dead_more_often, backend, count), 60.0, "end") for count in (0, 1, 2)]
        assert ends[2] - ends[1] >= 1.0  # half a second after the first one


def _dead_more_often(backend: ScanBackend, count: int) -> float:
    return time.monotonic() if backend.counters() and backend.restarts > count else 0.0


def test_a_worker_that_says_nothing_is_told_and_then_replaced(root: None, no_ksm: Door) -> None:
    patience = WorkerPatience(told_seconds=0.5, ended_seconds=2.0)
    with workloads([MIX], mergeable=False) as loads, scanning(no_ksm, REPORT, loads, patience=patience) as backend:
        wait_passes(backend, 1)
        first = backend.worker_pid
        os.kill(first, signal.SIGSTOP)
        wait_true(lambda: "the scan worker has said nothing for" in str(backend.problems), "problem")
        wait_true(lambda: "died 1 time" in str(backend.problems), "end of it")
        wait_true(lambda: bool(backend.counters()) and backend.worker_pid not in (0, first), "another worker")
        cause = r"died 1 time; last: it had said nothing for .* at process [0-9]+, and was ended"
        assert re.search(cause, backend.problems[0])
        wait_passes(backend, 2)


def test_the_guest_that_a_worker_hung_at_is_left_alone_and_the_others_are_not(root: None, no_ksm: Door) -> None:
    patience = WorkerPatience(told_seconds=0.5, ended_seconds=1.0)
    with workloads([MIX] * 2, mergeable=False) as loads, scanning(no_ksm, REPORT, loads, patience=patience) as backend:
        while not backend.refused:  # mostly the worker is in the middle of a pass over one of them
            wait_passes(backend, 1)
            os.kill(backend.worker_pid, signal.SIGSTOP)
            wait_for(partial(_dead_more_often, backend, backend.restarts), 60.0, "end of the worker")
        (hung,) = backend.refused
        assert "hung at it" in backend.refused[hung]
        backend.watch([guest(load) for load in loads])
        wait_true(lambda: len(backend.guests) == 1, "the other guest")
        assert backend.guests[0]["pid"] != hung[0]
        wait_passes(backend, 2)


def test_a_worker_that_not_even_a_kill_ends_is_given_up_and_its_guest_left_alone_as_long(
    root: None, no_ksm: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_HUNG_SECONDS", 0.0)
    patience = WorkerPatience(told_seconds=0.5, ended_seconds=1.0, given_up_seconds=1.0)
    with workloads([MIX] * 2, mergeable=False) as loads, scanning(no_ksm, REPORT, loads, patience=patience) as backend:
        wait_true(lambda: is_stopped_at_a_guest(backend), "a worker that is stopped at a guest")
        first = backend._link
        assert first
        with monkeypatch.context() as kernel:  # it waits for a file's server
            kernel.setattr(first._process, "kill", lambda: None)
            wait_true(lambda: "does not end: it waits for the kernel" in str(backend.problems), "what is wrong")
            wait_true(lambda: "but it waits for the kernel" in str(backend.problems), "that it is given up")
        for _ in range(2):
            backend.watch([guest(load) for load in loads])
            assert [key for key in backend.refused if key == first.hung_at]
            wait_passes(backend, 1)
        assert len(backend.guests) == 1
        first._process.kill()
        wait_true(lambda: first.has_ended, "its end")
        backend.watch([guest(load) for load in loads])
        wait_true(lambda: len(backend.guests) == 2, "both guests")


FAILING = """
import sys
from ksmtuned_py.model import GuestKey
from ksmtuned_py.scanner.mark import Mark
mark = Mark(int(sys.argv[1]))
mark.set(GuestKey(7, 11))
"""
KEPT = """
from ksmtuned_py.scanner.remap.stop.hurry import end_if_kept, hurry
end_if_kept(mark.stand)
with hurry():
    sys.stdin.read()
"""


@pytest.mark.parametrize(("end", "told"), [("raise OverflowError", "exit code 1"), (KEPT, "killed by signal 9")])
def test_the_guest_that_a_worker_failed_or_was_kept_at_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, end: str, told: str
) -> None:
    def spawn(other: socket.socket, mark: int, *_: object) -> subprocess.Popen[bytes]:
        with other:
            words = [sys.executable, "-c", FAILING + end, str(mark)]
            return subprocess.Popen(words, pass_fds=[mark, other.fileno()], stdin=never)

    monkeypatch.setattr(scanlink, "_spawn", spawn)
    never, writer = os.pipe()
    with os.fdopen(never), os.fdopen(writer, "w"), closing(ScanBackend(REPORT_ONLY)) as backend:
        wait_true(lambda: told in str(backend.problems), "end of the worker")
        assert "hung at it, or failed" in backend.refused[GuestKey(7, 11)]
        backend.watch(
            [Guest(pid=7, start_ticks=11, name="one", kind=""), Guest(pid=7, start_ticks=12, name="two", kind="")]
        )
        assert [one.name for one in backend._wanted.targets] == ["two"]


@pytest.mark.parametrize(
    "error", [OverflowError(), OSError(), Gone("one"), Refused("no")], ids=lambda error: str(type(error))
)
def test_a_guest_stays_marked_only_when_the_worker_fails_at_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    marks: list[GuestKey] = []
    monkeypatch.setattr(Sweep, "guest", fail)
    scanner = Scanner(Door(), for_scanner(Scan(reclaim="report")), mark=marks.append)
    scanner.watch([Target(pid=os.getpid(), start_ticks=0)])
    with pytest.raises(OverflowError) if isinstance(error, OverflowError) else nullcontext():
        next(scanner.steps())
    assert marks[0].pid == os.getpid()
    assert (marks[-1] == NOBODY) != isinstance(error, OverflowError)


def is_stopped_at_a_guest(backend: ScanBackend) -> bool:
    """Stops the worker; it runs on when it was at no guest."""
    assert backend._link
    os.kill(backend.worker_pid, signal.SIGSTOP)
    wait_for(lambda: "State:\tT" in Path(f"/proc/{backend.worker_pid}/status").read_text(), 5.0, "stopped worker")
    if backend._link._mark.get() == NOBODY:
        os.kill(backend.worker_pid, signal.SIGCONT)
        return False
    return True


def test_a_worker_that_comes_back_is_kept(root: None, no_ksm: Door) -> None:
    patience = WorkerPatience(told_seconds=0.3, ended_seconds=30.0)
    with workloads([MIX], mergeable=False) as loads, scanning(no_ksm, REPORT, loads, patience=patience) as backend:
        first = backend.worker_pid
        os.kill(first, signal.SIGSTOP)
        assert backend.write(Write(knob="pages_to_scan", old=0, new=7000)).status is WriteStatus.PENDING
        backend.watch([])
        backend.watch([guest(loads[0]), guest(loads[0])])
        wait_true(lambda: bool(backend.problems), "problem")
        os.kill(first, signal.SIGCONT)
        wait_true(lambda: not backend.problems, "end of the problem")
        assert backend.write(Write(knob="pages_to_scan", old=0, new=7000)).status is WriteStatus.OK
        wait_true(lambda: len(backend.guests) == 2, "the guests that were told of last")
        assert backend.worker_pid == first


def test_5000_guests_with_long_names_are_told_of_and_told_back(root: None, no_ksm: Door) -> None:
    """The messages are larger than any packet socket can hold, in both directions."""
    many = [Guest(pid=4_000_000 + number, start_ticks=1, name=f"{number:*>400}", kind="") for number in range(5000)]
    with closing(ScanBackend(REPORT_ONLY, no_ksm)) as backend:
        backend.watch(many)
        turn(backend, "pages_to_scan", 100_000)
        turn(backend, "run", 1)
        wait_true(lambda: len(backend.guests) == 5000, "all guests")
        assert [one["name"] for one in backend.guests] == [one.name for one in many]
        backend.watch(many[:3])
        wait_true(lambda: len(backend.guests) == 3, "end of the others")
        turn(backend, "run", 0)
        assert (backend.restarts, backend.problems) == (0, ())


def test_guests_come_and_go(root: None, no_ksm: Door) -> None:
    with workloads([MIX], mergeable=False) as loads, scanning(no_ksm, REPORT, loads) as backend:
        wait_passes(backend, 1)
        backend.watch([])
        wait_true(lambda: backend.guests == [], "end of the guests")
        begun = backend.counters().full_scans
        time.sleep(0.3)
        assert backend.counters().full_scans <= begun + 1


def test_who_is_refused_is_told_with_the_guest_and_among_the_problems(root: None, no_ksm: Door) -> None:
    config = Config(guests=Guests(name_patterns=("ksm-workload",), mergeable=False, libvirt_uri=""))
    config = config.model_copy(update={"scan": REPORT.model_copy(update={"worker_memory_mib": 64})})
    with workloads([MIX], mergeable=False), scan_machine(no_ksm, config, dry=False) as machine:
        machine.host.apply((Write(knob="pages_to_scan", old=100, new=100_000),))
        machine.host.apply((Write(knob="run", old=0, new=1),))

        def refused() -> Snapshot | None:
            now = machine.host.observe()
            return now if any(one.refused for one in now.guests) else None

        found = wait_for(refused, 60.0, "reason")
        assert found is not None
        for reason in filter(None, (one.refused for one in found.guests)):
            assert "scan.worker_memory_mib is too small" in reason
            assert _but_for_numbers(reason) in _but_for_numbers(str(found.problems))  # the worker may tell in between


def _but_for_numbers(text: str) -> str:
    return re.sub(r"\d+", "N", text)
