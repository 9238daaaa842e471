"""A worker that the kernel kills for want of memory harms no guest, and the next one goes on."""

from ksmtuned_py.backends.scan import ScanBackend
from ksmtuned_py.door import Door
from ksmtuned_py.units import MIB
from tests.scan.conftest import scanning, told, turn, wait_passes, wait_true
from tests.scan.test_remap import REMAP
from tests.scan.writers import Writer, runs_freely, stores, writers
from tests.support.memcgroup import memory_cgroup

LIMIT_BYTES = 1 * MIB
"""Less than the shared pages of two guests take. Who writes them first is charged for them."""
KILLED = "the scan worker has died 1 time; last: it was killed by signal 9 (Killed); was it the OOM killer?"


def test_guests_survive_a_worker_that_runs_out_of_memory(root: None, no_ksm: Door) -> None:
    with (
        memory_cgroup("ksmtuned-py-worker") as group,
        writers(2) as guests,
        scanning(no_ksm, REMAP, guests, run=0) as backend,
    ):
        group.limit(LIMIT_BYTES)
        group.add(backend.worker_pid)
        turn(backend, "run", 1)
        wait_true(lambda: told(backend, KILLED), "end of the worker")
        assert all(map(runs_freely, guests))
        unharmed(guests)
        wait_true(lambda: share(backend, guests), "pages shared by the next worker")
        wait_passes(backend, 2)
        assert backend.restarts == 1
        unharmed(guests)


def share(backend: ScanBackend, guests: list[Writer]) -> bool:
    """Whether all guests share pages by now. A worker that has ended is replaced when somebody asks for it."""
    return backend.counters().pages_sharing > 0 and bool(set.intersection(*map(stores, guests)))


def unharmed(guests: list[Writer]) -> None:
    assert [one.check()["wrong"] for one in guests] == [0] * len(guests)
