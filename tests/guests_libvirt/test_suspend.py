"""Domains whose disks use io_uring share memory while libvirt has them suspended, and none is left so."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ksmtuned_py.backends.scan.client import ScanBackend
from ksmtuned_py.backends.scan.remap.holdnote import NOTES
from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from tests.scan.conftest import guest, turn, wait_true
from tests.support.libvirtd import EQUAL_BYTES, Domain, Libvirtd
from tests.support.process import wait_for

pytest.importorskip("libvirt")
pytestmark = pytest.mark.qemu

SETTINGS = Scan(
    reclaim="remap",
    remap_guests=("*",),
    suspend_guests=("*",),
    remap_least_mib=32,
    split_huge_below_percent=100,
)
RUNNING = {"running (booted)", "running (unpaused)", "running (unknown)"}
DISK = "<disk type='file'><driver name='qemu' type='raw' io='io_uring'/><source file='{}'/><target dev='vda'/></disk>"


@pytest.fixture
def domains(libvirtd: Libvirtd, tmp_path: Path) -> list[Domain]:
    """Two that ksmd would leave alone."""
    for name in ("web", "db"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    return [
        libvirtd.create(name, backing="<nosharepages/>", devices=DISK.format(tmp_path / name)) for name in ("web", "db")
    ]


@pytest.fixture
def begins(domains: list[Domain]) -> list[int]:
    """Where their memory begins; it is found by its size, which remapping cuts."""
    return [domain.ram()[0] for domain in domains]


@contextmanager
def scanning(libvirtd: Libvirtd, domains: list[Domain]) -> Iterator[ScanBackend]:
    """The scanner at work on the domains."""
    with closing(ScanBackend(SETTINGS, Door(), libvirtd.uri)) as backend:
        backend.watch([guest(domain) for domain in domains])
        turn(backend, "pages_to_scan", 100_000)
        turn(backend, "run", 1)
        yield backend


def all_run(libvirtd: Libvirtd) -> bool:
    """Whether both do."""
    return {libvirtd.virsh("domstate", name, "--reason") for name in ("web", "db")} <= RUNNING


def test_they_share_and_run(libvirtd: Libvirtd, domains: list[Domain], begins: list[int]) -> None:
    with scanning(libvirtd, domains) as backend:
        wait_true(lambda: backend.counters().pages_sharing * 4096 >= 0.9 * EQUAL_BYTES, "shared pages")
        print(backend.window_milliseconds, backend.problems)
        assert backend.window_milliseconds["suspended_p50"] > 0
    wait_for(lambda: all_run(libvirtd), 5.0, "domains that run")
    assert all(domain.intact(begin) for domain, begin in zip(domains, begins, strict=True))


def test_who_was_suspended_by_virsh_stays_so(libvirtd: Libvirtd, domains: list[Domain]) -> None:
    libvirtd.virsh("suspend", "web")
    with scanning(libvirtd, domains) as backend:
        wait_true(lambda: any(one["refusal"] == "it does not run, says libvirt" for one in backend.guests), "reason")
        assert libvirtd.virsh("domstate", "web") == "paused"


@pytest.mark.parametrize("victim", ["worker", "libvirtd"])
def test_nobody_stays_suspended_whoever_is_killed(
    victim: str, libvirtd: Libvirtd, domains: list[Domain], begins: list[int]
) -> None:
    for _ in range(5):
        with scanning(libvirtd, domains) as backend:
            wait_true(lambda: backend.worker_pid > 0 and any(NOTES.glob("*")), "suspension")
            if victim == "worker":
                os.kill(backend.worker_pid, signal.SIGKILL)
            else:
                libvirtd.kill()
                libvirtd.start()
            wait_for(lambda: all_run(libvirtd), 10.0, "domains that run")
            turn(backend, "run", 2)
    assert all(domain.intact(begin) for domain, begin in zip(domains, begins, strict=True))
