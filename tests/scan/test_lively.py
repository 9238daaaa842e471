"""Guests that go on with their lives while they are merged: each works with every byte right, or is refused by name."""

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ksmtuned_py.backends.scan import ScanBackend
from ksmtuned_py.door import Door
from tests.scan.conftest import scanning, told, turn, wait_passes, wait_true
from tests.scan.crowd import IDLE_SECONDS, MANY_TIMES, MIB, SMALL, Crowd, Start, crowd, goes_on, program
from tests.scan.forkedworkers import forked_workers
from tests.scan.writers import Writer, runs_freely, stores, writers
from tests.support.process import wait_for

STOPPED_CALLS = ("nanosleep", "poll", "ppoll", "select", "futex", "epoll", "sigtimedwait", "wait4")
CALLS = (*STOPPED_CALLS, "pipe_write", "pipe_read")
BESIDE = {"fork": MANY_TIMES, "vfork": MANY_TIMES, "churn": 10, "stack": MANY_TIMES}
"""What guests do beside being merged, and how often each has done it before it is judged."""


def lively(name: str, *words: str) -> Writer:
    return Writer(name, command=(sys.executable, "-m", "tests.scan.lively", str(MIB), *words))


@contextmanager
def beside_others(door: Door, one: Writer) -> Iterator[tuple[ScanBackend, list[Writer]]]:
    """Yields a backend at work on the guest and two plain ones, which must go on whatever becomes of it."""
    with writers(2, MIB, IDLE_SECONDS) as others, scanning(door, SMALL, [one, *others], sleep_millisecs=0) as backend:
        yield backend, others
        wait_true(lambda: bool(stores(others[0]) & stores(others[1])), "pages shared by the others")
        wait_passes(backend, 2)
        assert [other.check()["wrong"] for other in others] == [0, 0]
        assert backend.restarts == 0


def test_threads_that_come_and_go_all_the_time_keep_it_from_merging_at_most(root: None, no_ksm: Door) -> None:
    """So many begin that it has no other guests beside it which begin some."""
    changing = ("changing all the time", "begin and end faster", "too many processes have begun", "have changed")
    with lively("one", "thread") as one, beside_others(no_ksm, one) as (backend, _):
        wait_true(
            lambda: bool(stores(one)) or any(told(backend, words) for words in changing), "shared pages, or a reason"
        )
        goes_on(one, ["thread"])


def test_interrupted_calls_are_right_when_the_worker_is_killed_in_the_midst(root: None, no_ksm: Door) -> None:
    chance = random.Random(5)
    with forked_workers(), lively("one", *CALLS) as one:
        for _ in range(10):
            with scanning(no_ksm, SMALL, [one], sleep_millisecs=0) as backend:
                wait_true(lambda: bool(backend.window_milliseconds), "first stop")
                time.sleep(chance.uniform(0, 0.3))
                os.kill(backend.worker_pid, signal.SIGKILL)
                wait_for(lambda: runs_freely(one), 5.0, "guest that runs freely")
            goes_on(one, CALLS, 2)


class Execing(Writer):
    """A guest that becomes another program every second, and tells a file how often."""

    def __init__(self, name: str, told: Path, how: str) -> None:
        told.touch(0o600)
        super().__init__(name, command=(sys.executable, "-m", "tests.scan.execing", str(MIB), how, str(told)))
        self._told = told

    def go_on(self, *, on: bool) -> None:
        """Has it become another program again and again, or no more: each costs a fifth of a second of CPU time."""
        self._told.chmod(0o700 if on else 0o600)

    def times(self) -> int:
        assert "wrong" not in self._told.read_text()
        return len(self._told.read_text())


def execing(directory: Path, how: str) -> Start:
    return lambda name: Execing(name, directory / how, how)


@pytest.fixture(scope="module")
def guests(machine: Door, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """One guest for each thing that guests do."""
    directory = tmp_path_factory.mktemp("told")
    doing = {what: program("lively", what) for what in (*BESIDE, "clone")}
    calling = {"calls": program("lively", *CALLS)}
    with crowd(machine, doing | calling | {how: execing(directory, how) for how in ("leader", "thread")}) as found:
        yield found


@pytest.mark.parametrize(("what", "times"), BESIDE.items())
def test_what_a_guest_does_beside_is_right_while_it_is_merged(guests: Crowd, what: str, times: int) -> None:
    guests.wait_merged(what)
    goes_on(guests[what], [what], times)


def test_a_child_with_the_same_memory_that_comes_and_goes_does_no_harm(guests: Crowd) -> None:
    goes_on(guests["clone"], ["clone"])


def test_calls_that_a_stop_interrupts_return_what_they_must(guests: Crowd) -> None:
    guests.wait_merged("calls")
    goes_on(guests["calls"], CALLS, 4 * MANY_TIMES)


@pytest.mark.parametrize("how", ["leader", "thread"])
def test_a_guest_that_calls_exec_again_and_again_goes_on(guests: Crowd, how: str) -> None:
    one = guests[how]
    assert isinstance(one, Execing)
    begun = one.times()
    one.go_on(on=True)
    wait_true(lambda: one.times() >= begun + 6, "six more programs")
    one.go_on(on=False)
    wait_for(lambda: runs_freely(one), 5.0, "guest that runs freely")


def test_the_others_go_on(guests: Crowd) -> None:
    guests.are_well()


@pytest.fixture(scope="module")
def given_back(guests: Crowd) -> None:
    """Has all pages been given back, after all else was seen."""
    turn(guests.backend, "run", 2)


@pytest.mark.parametrize("what", BESIDE)
def test_so_it_is_after_pages_were_given_back(guests: Crowd, given_back: None, what: str) -> None:
    wait_true(lambda: not stores(guests[what]), "pages given back")
    goes_on(guests[what], [what], 2)
