"""Where merging costs more than it saves, the real kernel's guests get their pages back while ticks go on."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from ksmtuned_py.cli.workload import Mix, Workload, workloads
from ksmtuned_py.units import KIB, MIB
from tests.kernel.conftest import Start
from tests.kernel.test_merging import FAST
from tests.support.daemon import Daemon, merged, verb
from tests.support.ksmlock import RealKsm, knobs
from tests.support.memcgroup import memory_cgroup
from tests.support.need import need
from tests.support.process import wait_for

pytestmark = pytest.mark.kernel

LOSING = [Mix(equal_bytes=512 * KIB, unique_bytes=64 * MIB)] * 3
"""They save 1 MiB together, and the kernel's bookkeeping for them takes 3 MiB."""
LOSS_SECONDS = 120
"""The longest that it takes until they have been scanned often enough, on a machine that does much else."""
QUICK_LOSS = merged(FAST, {"adaptive": {"pass_gap_seconds": 1}})
HELPER = "ksmtuned_py.undo.unshare"


@pytest.fixture
def guests(real_ksm: RealKsm) -> Iterator[list[Workload]]:
    """Guests that merge at a loss."""
    with workloads(LOSING) as guests:
        yield guests


def merged_bytes(guest: Workload) -> int:
    """The bytes of a guest that are in merged pages, as its page tables have it."""
    text = Path(f"/proc/{guest.pid}/smaps_rollup").read_text()
    found = [int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("KSM:")]
    need(bool(found), "a kernel that counts merged pages in smaps_rollup")
    return found[0]


def gives_back(status: dict[str, Any]) -> bool:
    """Whether the daemon gives memory back while it ticks."""
    return bool(status["snapshot"]["giving_back"])


def held_up(daemon: Daemon) -> psutil.Process:
    """Have a guest not answer: stop the process that unshares its pages. It is returned."""

    def helpers() -> list[psutil.Process]:
        found = [child for child in psutil.Process(daemon.pid).children() if HELPER in child.cmdline()]
        for child in found:
            child.suspend()
        return found

    [helper] = wait_for(helpers, LOSS_SECONDS, "a guest that is given its pages", every_seconds=0.005)
    daemon.wait_status(gives_back, "giving back")
    return helper


def test_a_guest_whose_limit_has_no_room_stays_merged_and_all_others_are_given_their_pages(
    guests: list[Workload], start: Start
) -> None:
    before, limited = knobs(), guests[1]
    with memory_cgroup("ksmtuned-py-test-loss") as cgroup, ExitStack() as undo:
        cgroup.add(limited.pid)
        undo.callback(limited.stop)
        cgroup.limit(8 * MIB)  # what it has now is charged elsewhere
        daemon = start(QUICK_LOSS)
        daemon.wait_output("run 0 -> 2: refused", LOSS_SECONDS)
        assert "load-2 stays merged: it needs 512 KiB and its cgroup's limit leaves " in daemon.output()
        assert [merged_bytes(guest) for guest in guests] == [0, 512 * KIB, 0]
        assert [guest.wrong_pages() for guest in guests] == [0, 0, 0]
        daemon.wait_ticks(3)
        status = daemon.status()
        assert (status["decision"]["rule"], status["decision"]["knobs"]["run"]) == ("net_loss", 2)
        assert not gives_back(status)  # the next try is in an hour
        assert status["totals"]["errors"] == {}
        assert daemon.end() == 0
        assert knobs() == before


def test_ticks_go_on_beside_a_guest_that_does_not_answer_and_news_ends_it(
    real_ksm: RealKsm, guests: list[Workload], start: Start
) -> None:
    daemon = start(QUICK_LOSS)
    helper = held_up(daemon)
    daemon.wait_ticks(3)
    assert gives_back(daemon.status())
    assert daemon.status()["decision"]["rule"] == "net_loss"
    with workloads([Mix(equal_bytes=32 * MIB, zero_bytes=8 * MIB)]):
        daemon.wait_status(lambda status: status["decision"]["mode"] == "boost", "the boost")
        wait_for(lambda: real_ksm.read("run") == "1", 10, "merging")
        daemon.wait_status(lambda status: not gives_back(status), "the end of giving back")
        helper.resume()
        helper.wait(10)
        assert "somebody else" not in daemon.output()
        assert daemon.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stop_ends_it_at_once_and_the_debt_of_a_killed_one_is_paid(
    guests: list[Workload], start: Start, number: signal.Signals
) -> None:
    before = knobs()
    daemon = start(QUICK_LOSS)
    helper = held_up(daemon)
    assert daemon.end(number) == (0 if number is signal.SIGTERM else -number)
    if number is signal.SIGKILL:
        assert verb("restore", "--runtime-dir", daemon.runtime).returncode == 0
    assert knobs() == before
    helper.resume()
    helper.wait(10)
