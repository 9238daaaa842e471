"""Guests with a disk: remapped while their own threads read and write it, refused where the kernel does by itself."""

from pathlib import Path

import pytest

from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from tests.scan.conftest import scanning, told, turn, wait_passes, wait_true
from tests.scan.diskguests import EQUAL_BYTES, disk_guests
from tests.support.process import wait_for
from tests.support.qemu import need_qemu

pytestmark = pytest.mark.qemu
REMAP = Scan(reclaim="remap", remap_guests=("disk-*",), split_huge_below_percent=100)
NAMES = ["disk-1", "disk-2"]
SECONDS = 240.0


def test_they_share_while_their_threads_read_and_write_a_disk(root: None, no_ksm: Door, tmp_path: Path) -> None:
    need_qemu()
    with disk_guests(NAMES, tmp_path, "threads", block=True) as guests:
        with scanning(no_ksm, REMAP, guests) as backend:
            before = [one.rounds() for one in guests]
            wait_for(lambda: backend.counters().pages_sharing * 4096 >= 0.9 * EQUAL_BYTES, SECONDS, "shared pages")
            print(backend.window_milliseconds, backend.problems)
            for one, rounds in zip(guests, before, strict=True):
                wait_for(lambda one=one, rounds=rounds: one.rounds() > rounds, SECONDS, "work with the disk")  # type: ignore[misc] # mypy cannot infer a lambda's default
                assert one.checksums_inside() == one.checksums
            turn(backend, "run", 2)
            wait_for(lambda: backend.counters().pages_sharing == 0, SECONDS, "pages given back")
        for one in guests:
            one.rounds()
            assert one.checksums_inside() == one.checksums


@pytest.mark.parametrize(("aio", "what"), [("io_uring", "io_uring"), ("native", "native AIO")])
def test_a_kernel_that_reads_and_writes_by_itself_is_the_reason(
    root: None, no_ksm: Door, tmp_path: Path, aio: str, what: str
) -> None:
    need_qemu()
    with (
        disk_guests(NAMES[:1], tmp_path, aio, block=aio == "native") as (one,),
        scanning(no_ksm, REMAP, [one]) as backend,
    ):
        wait_true(lambda: told(backend, f"disk-1: the kernel ({what}) may write to its memory at any time"), "reason")
        wait_passes(backend, 4)
        assert backend.counters().pages_sharing == 0
