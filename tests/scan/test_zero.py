"""Pages of zeros are given back: really freed, without disk I/O, and only where that is so."""

from pathlib import Path

from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.units import MIB
from ksmtuned_py.workload import Mix, workloads
from tests.scan.conftest import rss_bytes, scanning, turn, vmstat, wait_passes, wait_true

ZERO_BYTES = 128 * MIB
ZERO_PAGES = ZERO_BYTES // 4096


def available_bytes() -> int:
    return int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1024


def test_zero_pages_are_really_freed_and_come_back_as_zeros(zram_swap: None, no_ksm: Door) -> None:
    with workloads([Mix(zero_bytes=ZERO_BYTES, unique_bytes=16 * MIB)] * 2) as loads:
        written, rss = vmstat("pswpout"), sum(rss_bytes(load.pid) for load in loads)
        with scanning(no_ksm, Scan(), loads) as backend:
            wait_true(lambda: (backend.counters().ksm_zero_pages or 0) >= 1.9 * ZERO_PAGES, "zero pages given back")
            turn(backend, "run", 0)
            assert backend.problems == ()
        freed = rss - sum(rss_bytes(load.pid) for load in loads)
        assert freed >= 0.95 * 2 * ZERO_BYTES
        assert vmstat("pswpout") - written < 0.01 * ZERO_PAGES
        assert [load.wrong_pages() for load in loads] == [0, 0]


def test_without_swap_the_reason_is_said_and_nothing_happens(root: None, no_ksm: Door, tmp_path: Path) -> None:
    (tmp_path / "root/proc").unlink()
    (tmp_path / "root/proc").mkdir()
    (tmp_path / "root/proc/swaps").write_text("Filename Type Size Used Priority\n")
    (tmp_path / "root/proc/meminfo").symlink_to("/proc/meminfo")
    with workloads([Mix(zero_bytes=8 * MIB)]) as loads:
        (tmp_path / f"root/proc/{loads[0].pid}").symlink_to(f"/proc/{loads[0].pid}")
        with scanning(no_ksm, Scan(), loads) as backend:
            wait_passes(backend, 3)
            assert "no swap with room" in backend.problems[0]
            assert backend.counters().ksm_zero_pages == 0
            assert backend.guests[0]["saveable_pages"] >= 2048


def test_a_guest_that_touches_its_zero_pages_again_is_left_alone_for_a_while(zram_swap: None, no_ksm: Door) -> None:
    with workloads([Mix(zero_bytes=32 * MIB)]) as loads, scanning(no_ksm, Scan(), loads, sleep_millisecs=20) as backend:
        wait_true(lambda: (backend.counters().ksm_zero_pages or 0) > 8000, "zero pages given back")
        loads[0].wrong_pages()  # reads them all
        wait_true(lambda: backend.guests[0]["rests"] > 0, "the back-off")
        wait_true(lambda: (backend.counters().ksm_zero_pages or 0) > 8000, "zero pages given back once more")


def test_report_mode_counts_and_touches_nothing(zram_swap: None, no_ksm: Door) -> None:
    mix = Mix(zero_bytes=16 * MIB, equal_bytes=16 * MIB)
    with workloads([mix] * 2) as loads, scanning(no_ksm, Scan(reclaim="report"), loads) as backend:
        wait_passes(backend, 3)
        assert backend.counters().saved_pages == 0
        assert all(one["saveable_pages"] >= 8192 for one in backend.guests)
