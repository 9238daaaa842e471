"""Real QEMU guests run on while their zero pages are given back; each reads its own content right, and answers."""

import pytest

from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from tests.scan.conftest import rss_bytes, scanning, turn, wait_true, zero_pages
from tests.support.qemu import FilledGuest


@pytest.mark.qemu
def test_two_guests_give_their_zero_pages_back(qemu_guests: list[FilledGuest], zram_swap: None, no_ksm: Door) -> None:
    for one in qemu_guests:  # the guest touches memory and frees it, as zeros
        one.command("dd if=/dev/zero of=/zeros bs=1M count=24 2>&1")
    zeros = zero_pages(qemu_guests, no_ksm)
    assert zeros * 4096 >= 2 * 24 << 20
    before = sum(rss_bytes(one.pid) for one in qemu_guests)
    with scanning(no_ksm, Scan(split_huge_below_percent=100), qemu_guests) as backend:
        wait_true(lambda: (backend.counters().ksm_zero_pages or 0) >= 0.95 * zeros, "zero pages given back")
        turn(backend, "run", 0)
        assert backend.problems == ()
    assert before - sum(rss_bytes(one.pid) for one in qemu_guests) >= 0.95 * zeros * 4096
    for one in qemu_guests:
        assert one.checksums_inside() == one.checksums
        assert one.command("echo still here") == "still here\n"
