"""Real QEMU guests run on while their memory is given back; each reads its own content right, and answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from tests.scan.conftest import rss_bytes, scanning, told, turn, wait_true, zero_pages
from tests.scan.test_remap import pss_bytes
from tests.support.qemu import FilledGuest, Guest, filled_guests, guest_kernel, make_initrd, need_qemu

EQUAL_BYTES, OWN_BYTES = 32 << 20, 8 << 20
AS_LIBVIRT = (
    *("-machine", "dump-guest-core=off,mem-merge=off"),
    *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
)
REMAP = Scan(reclaim="remap", remap_guests=("scan-*",), split_huge_below_percent=100)


@pytest.fixture(scope="module")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FilledGuest]]:
    """Two guests for the whole file, as a boot takes three seconds of CPU.

    Without mem-merge they need no lock: the real ksmd has nothing to do with them.
    """
    need_qemu()
    directory = tmp_path_factory.mktemp("guests")
    sizes = {"equal_bytes": EQUAL_BYTES, "own_bytes": OWN_BYTES}
    with filled_guests(["scan-1", "scan-2"], directory, **sizes, more=AS_LIBVIRT) as found:
        yield found


@pytest.mark.qemu
def test_two_guests_share_their_equal_pages_and_read_them_right(
    root: None, no_ksm: Door, guests: list[FilledGuest]
) -> None:
    assert all("Seccomp:\t2\n" in Path(f"/proc/{one.pid}/status").read_text() for one in guests)
    before = sum(pss_bytes(one.pid) for one in guests)
    with scanning(no_ksm, REMAP, guests) as backend:
        wait_true(lambda: backend.counters().pages_sharing * 4096 >= 0.9 * EQUAL_BYTES, "shared pages")
        for one in guests:
            assert one.checksums_inside() == one.checksums
            assert one.command("echo still here") == "still here\n"
        assert before - sum(pss_bytes(one.pid) for one in guests) > 0.8 * EQUAL_BYTES
        print(backend.window_milliseconds, backend.counters())
        turn(backend, "run", 2)
        wait_true(lambda: backend.counters().pages_sharing == 0, "pages given back")
    for one in guests:
        assert one.checksums_inside() == one.checksums


@pytest.mark.qemu
def test_two_guests_give_their_zero_pages_back(zram_swap: None, no_ksm: Door, guests: list[FilledGuest]) -> None:
    for one in guests:  # the guest touches memory and frees it, as zeros
        one.command("dd if=/dev/zero of=/zeros bs=1M count=24 2>&1")
    zeros = zero_pages(guests, no_ksm)
    assert zeros * 4096 >= 2 * 24 << 20
    before = sum(rss_bytes(one.pid) for one in guests)
    with scanning(no_ksm, Scan(split_huge_below_percent=100), guests) as backend:
        wait_true(lambda: (backend.counters().ksm_zero_pages or 0) >= 0.95 * zeros, "zero pages given back")
        turn(backend, "run", 0)
        assert backend.problems == ()
    assert before - sum(rss_bytes(one.pid) for one in guests) >= 0.95 * zeros * 4096
    for one in guests:
        assert one.checksums_inside() == one.checksums
        assert one.command("echo still here") == "still here\n"


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
