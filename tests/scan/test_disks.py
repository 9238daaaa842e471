"""Guests with a block device as their disk, whose threads wait for it: remapped while they run, and disks are right."""

from pathlib import Path

import pytest

from ksmtuned_py.door import Door
from tests.scan.conftest import scanning, turn
from tests.scan.diskguests import disk_guests
from tests.scan.test_suspend import NAMES, REMAP, shared
from tests.support.process import wait_for
from tests.support.qemu import need_qemu

SECONDS = 120.0


@pytest.mark.qemu
def test_they_share_while_their_threads_read_and_write_a_disk(root: None, no_ksm: Door, tmp_path: Path) -> None:
    need_qemu()
    with disk_guests(NAMES, tmp_path, "threads", block=True) as guests:
        with scanning(no_ksm, REMAP, guests) as backend:
            before = [one.rounds() for one in guests]
            wait_for(lambda: shared(backend), SECONDS, "shared pages")
            print(backend.window_milliseconds, backend.problems)
            for one, rounds in zip(guests, before, strict=True):
                wait_for(lambda one=one, rounds=rounds: one.rounds() > rounds, SECONDS, "work with the disk")  # type: ignore[misc] # mypy cannot infer a lambda's default
                assert one.checksums_inside() == one.checksums
            turn(backend, "run", 2)
            wait_for(lambda: backend.counters().pages_sharing == 0, SECONDS, "pages given back")
        for one in guests:
            one.rounds()
            assert one.checksums_inside() == one.checksums
