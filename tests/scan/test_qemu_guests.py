"""Real QEMU guests run on while their pages are shared; each reads its own content right, and answers."""

from pathlib import Path

import pytest

from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from tests.scan.conftest import QEMU_EQUAL_BYTES, scanning, told, turn, wait_true
from tests.scan.test_remap import pss_bytes
from tests.support.qemu import FilledGuest, Guest, guest_kernel, make_initrd, need_qemu

REMAP = Scan(reclaim="remap", remap_guests=("scan-*",), split_huge_below_percent=100)


@pytest.mark.qemu
def test_two_guests_share_their_equal_pages_and_read_them_right(
    root: None, no_ksm: Door, qemu_guests: list[FilledGuest]
) -> None:
    assert all("Seccomp:\t2\n" in Path(f"/proc/{one.pid}/status").read_text() for one in qemu_guests)
    before = sum(pss_bytes(one.pid) for one in qemu_guests)
    with scanning(no_ksm, REMAP, qemu_guests) as backend:
        wait_true(lambda: backend.counters().pages_sharing * 4096 >= 0.9 * QEMU_EQUAL_BYTES, "shared pages")
        for one in qemu_guests:
            assert one.checksums_inside() == one.checksums
            assert one.command("echo still here") == "still here\n"
        assert before - sum(pss_bytes(one.pid) for one in qemu_guests) > 0.8 * QEMU_EQUAL_BYTES
        print(backend.window_milliseconds, backend.counters())
        turn(backend, "run", 2)
        wait_true(lambda: backend.counters().pages_sharing == 0, "pages given back")
    for one in qemu_guests:
        assert one.checksums_inside() == one.checksums


@pytest.mark.qemu
def test_a_guest_that_comes_from_another_host_is_refused(root: None, no_ksm: Door, tmp_path: Path) -> None:
    """What it has not got yet would be read from merged pages, and not be asked for."""
    need_qemu()
    more = ("-machine", "mem-merge=off", "-incoming", "defer")
    with (
        Guest("scan-1", guest_kernel(), make_initrd(tmp_path, {}), memory_mib=128, more=more) as guest,
        scanning(no_ksm, REMAP, [guest]) as backend,
    ):
        wait_true(lambda: told(backend, "scan-1: it came from another host (-incoming)"), "reason")
        assert "ksmtuned-py" not in Path(f"/proc/{guest.pid}/maps").read_text()
