"""What a hostile process tries: nothing of it reaches another guest's memory, or what all have mapped."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ksmtuned_py.cli.workload import Mix, workloads
from ksmtuned_py.door import Door
from ksmtuned_py.scanner.remap.foothold.area import SEALS
from ksmtuned_py.scanner.remap.share.store import STORE_BYTES
from ksmtuned_py.scanner.remap.share.stores import Stores
from ksmtuned_py.units import MIB
from tests.scan.conftest import result, scanning, wait_true
from tests.scan.test_remap import REMAP, store_bytes
from tests.scan.writers import MIB as GUEST_MIB
from tests.scan.writers import Writer, stores, writers
from tests.support.qemu import NOBODY

GROUP = hashlib.sha256(b"").hexdigest()[:8]
TRAP = """
import fcntl, mmap, os, sys
memfd = os.memfd_create(sys.argv[1], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
os.fchmod(memfd, 0o600)
os.ftruncate(memfd, int(sys.argv[2]))
fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, int(sys.argv[3]))
memory = mmap.mmap(memfd, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE)
print(os.fstat(memfd).st_ino, flush=True)
sys.stdin.read()
"""


def odd(name: str, *words: str) -> Writer:
    return Writer(name, command=(sys.executable, "-m", "tests.scan.odd", str(GUEST_MIB), *words))


@contextmanager
def trap(user: int, size: int = STORE_BYTES, seals: int = SEALS) -> Iterator[str]:
    """Has a process of this user map a memfd with the name of the store of all guests; yields the memfd's inode."""
    words = [sys.executable, "-c", TRAP, f"ksmtuned-py-pages-{GROUP}-1", str(size), str(seals)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, user=user) as process:
        assert process.stdout
        yield process.stdout.readline().strip()
        process.kill()


def test_a_guest_cannot_write_to_what_all_have_mapped(root: None, no_ksm: Door) -> None:
    with odd("hostile") as hostile, writers(1) as (victim,), scanning(no_ksm, REMAP, [hostile, victim]) as backend:
        wait_true(lambda: bool(stores(hostile) & stores(victim)), "pages shared by both")
        wait_true(lambda: backend.counters().pages_sharing > 750, "shared pages")
        assert hostile.ask("spoil") == "open 1 able none\n"
        assert hostile.check()["wrong"] == victim.check()["wrong"] == 0


def test_a_memfd_of_somebody_else_is_not_taken_for_ours(root: None, no_ksm: Door) -> None:
    with trap(NOBODY) as inode, writers(2) as guests, scanning(no_ksm, REMAP, guests) as backend:
        wait_true(lambda: backend.counters().pages_sharing > 250, "shared pages")
        wait_true(lambda: all(map(stores, guests)), "shared pages of both")
        assert all(inode not in stores(one) for one in guests)


@pytest.mark.parametrize(("size", "seals"), [(STORE_BYTES, SEALS), (1 << 20, SEALS), (STORE_BYTES, 0)])
def test_nor_is_one_that_root_in_a_container_has_made(root: None, size: int, seals: int) -> None:
    with trap(0, size, seals) as inode:
        store = result(Stores(Door()).of("", None))
        assert store.key[1] != int(inode)
        store.close()


def test_a_guest_whose_first_thread_has_ended_keeps_its_pages(root: None, no_ksm: Door) -> None:
    commands = [(sys.executable, "-m", "tests.scan.leaderless", str(GUEST_MIB))] * 2
    with (
        Writer("one", command=commands[0]) as one,
        Writer("two", command=commands[1]) as two,
        workloads([Mix(equal_bytes=16 * MIB)] * 2, mergeable=False) as others,
        scanning(no_ksm, REMAP, [one, two, *others]) as backend,
    ):
        wait_true(lambda: backend.counters().pages_sharing > 2 * 4096, "shared pages")
        for guest in (one, two):
            guest.ask("end")
        wait_true(lambda: not Path(f"/proc/{one.pid}/maps").read_text(), "end of the first thread")
        before = store_bytes(backend)
        for other in others:
            other.stop()
        wait_true(lambda: before - store_bytes(backend) >= 15 * MIB, "memory of what only the others had")
        assert one.check()["wrong"] == two.check()["wrong"] == 0
