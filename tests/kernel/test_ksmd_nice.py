"""ksmd goes before the guests when memory is critical, and is put back as it was, however the daemon ends."""

import signal
from collections.abc import Iterator

import pytest

from ksmtuned_py.backends.ksmd import KsmdThread, find_ksmd
from ksmtuned_py.cli.workload import Workload
from ksmtuned_py.config.cpus import cpus_of
from ksmtuned_py.door import Door
from ksmtuned_py.policy.precedence import BEFORE_NICE
from tests.kernel.conftest import Start
from tests.support.daemon import QUIET, merged, verb
from tests.support.ksmlock import RealKsm
from tests.support.need import need
from tests.support.process import wait_for

pytestmark = pytest.mark.kernel

FOUND_NICE = 7
ENTER = {"wary": 99.9, "short": 99.8, "critical": 99.7}
NEEDY = {
    f"{need}_{gate}_percent": at for need, enter in ENTER.items() for gate, at in (("enter", enter), ("leave", 100))
}
BY_NEED = merged(
    QUIET,
    {"daemon": {"tick_seconds": 0.1, "idle_tick_seconds": 0.1}, "kernel": {"ksmd_nice": "need"}},
    {"adaptive.need": NEEDY},
)
"""Memory is critical, however much of it is available."""


@pytest.fixture
def ksmd(real_ksm: RealKsm) -> Iterator[KsmdThread]:
    """ksmd, as some admin has put it; afterwards it is as it was."""
    ksmd = KsmdThread(Door(), find_ksmd(Door()))
    before = ksmd.nice()
    assert before is not None
    ksmd.set_nice(FOUND_NICE)
    yield ksmd
    ksmd.set_nice(before)


def test_a_daemon_that_ends_puts_it_back(ksmd: KsmdThread, guests: list[Workload], start: Start) -> None:
    daemon = start(BY_NEED)
    wait_for(lambda: ksmd.nice() == BEFORE_NICE, 10, "ksmd before the guests")
    assert daemon.end() == 0
    assert ksmd.nice() == FOUND_NICE


def test_what_a_killed_daemon_left_is_put_back_by_the_verb_and_by_the_next_start(
    ksmd: KsmdThread,
    guests: list[Workload],
    start: Start,
) -> None:
    for _ in range(2):
        daemon = start(BY_NEED)
        wait_for(lambda: ksmd.nice() == BEFORE_NICE, 10, "ksmd before the guests")
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        assert ksmd.nice() == BEFORE_NICE
    kept = start(QUIET)
    assert ksmd.nice() == FOUND_NICE  # before it began, and it has not been asked to touch it
    assert kept.end() == 0

    daemon = start(BY_NEED)
    wait_for(lambda: ksmd.nice() == BEFORE_NICE, 10, "ksmd before the guests")
    daemon.process.send_signal(signal.SIGKILL)
    daemon.process.wait()
    done = verb("restore", "--runtime-dir", daemon.runtime)
    assert (done.returncode, done.stderr) == (0, "")
    assert ksmd.nice() == FOUND_NICE


def test_as_it_is_unless_it_was_asked_for(ksmd: KsmdThread, guests: list[Workload], start: Start) -> None:
    daemon = start(QUIET)
    assert daemon.status()["snapshot"]["knobs"]["ksmd_nice"] == FOUND_NICE
    ksmd.set_nice(3)  # somebody else does, and whoever never touched it does not put it back
    assert daemon.end() == 0
    assert ksmd.nice() == 3


def test_its_cpus_are_put_back_however_the_daemon_ends(ksmd: KsmdThread, guests: list[Workload], start: Start) -> None:
    found = ksmd.cpus()
    assert found is not None
    need(len(cpus_of(found)) > 1, "two CPUs")
    narrow = merged(QUIET, {"kernel": {"ksmd_cpus": "0"}})
    daemon = start(narrow)
    wait_for(lambda: ksmd.cpus() == "0", 10, "one CPU")
    assert daemon.end() == 0
    assert ksmd.cpus() == found

    daemon = start(narrow)
    wait_for(lambda: ksmd.cpus() == "0", 10, "one CPU")
    daemon.process.send_signal(signal.SIGKILL)
    daemon.process.wait()
    done = verb("restore", "--runtime-dir", daemon.runtime)
    assert (done.returncode, done.stderr) == (0, "")
    assert ksmd.cpus() == found
