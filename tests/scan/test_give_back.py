"""The one way of giving memory back, with the scan backend: run=2, watched to its end."""

from contextlib import closing

from ksmtuned_py.cli.workload import Mix, workloads
from ksmtuned_py.config import Scan
from ksmtuned_py.daemon.senses import KernelSenses
from ksmtuned_py.door import Door
from ksmtuned_py.guests.discovery import GuestFinder
from ksmtuned_py.host import Host
from ksmtuned_py.model import Write, WriteStatus
from ksmtuned_py.undo.giveback import Ways, give_back
from ksmtuned_py.units import MIB
from tests.scan.conftest import scanning, wait_true

EQUAL_BYTES = 32 * MIB
REMAP = Scan(reclaim="remap", remap_guests=("*",), remap_least_mib=8)


def test_run_2_is_pending_until_every_page_is_given_back(root: None, no_ksm: Door) -> None:
    said: list[str] = []
    with (
        workloads([Mix(equal_bytes=EQUAL_BYTES)] * 3, mergeable=False) as loads,
        scanning(no_ksm, REMAP, loads) as backend,
        closing(GuestFinder(no_ksm)) as finder,
    ):
        host = Host(backend, KernelSenses(no_ksm, finder, cpus=1))
        wait_true(lambda: backend.counters().pages_sharing >= 2 * 0.95 * EQUAL_BYTES // 4096, "shared pages")
        first = host.apply((Write(knob="run", old=1, new=2),)).results[0]
        assert (first.status, first.detail) == (WriteStatus.PENDING, "the scan worker gives pages back")
        give_back(Ways(host, said.append, said.append))
        assert backend.counters().pages_sharing == 0
        assert host.apply((Write(knob="run", old=2, new=2),)).results[0].status is WriteStatus.OK
        assert [load.wrong_pages() for load in loads] == [0, 0, 0]
