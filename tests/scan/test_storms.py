"""Guests that have or do very much of something: no stop, no step and nobody else's turn takes long for it."""

import mmap
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from ksmtuned_py.backends.scanlink import for_scanner
from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.foothold.permits import Permits
from ksmtuned_py.scanner.remap.refuse.looks import look
from ksmtuned_py.scanner.remap.refuse.opened import Belongings
from ksmtuned_py.scanner.remap.share.remapper import Remapper
from ksmtuned_py.scanner.remap.stop.stops import Stops
from ksmtuned_py.scanner.remap.stop.threads import MOST_THREADS
from ksmtuned_py.scanner.scanner import Scanner
from ksmtuned_py.scanner.target import Target
from tests.scan.conftest import result, wait_true
from tests.scan.test_tricks import SLOW, merge_once, merged_bytes, target
from tests.scan.writers import Writer, runs_freely, stores, writers

PAGE = mmap.PAGESIZE
OPEN = """
resource.setrlimit(resource.RLIMIT_NOFILE, (6000, 6000))
say()
[os.dup(0) for _ in range(5000)]
"""
FILTERS = """
from tests.support.seccomp import LOAD, RETURN, assemble, install
for number in range({count}):
    install(assemble(*[(LOAD, 0, 0, 4)] * {length}, (LOAD, 0, 0, 4 * (number % 4)), (RETURN, 0, 0, 0x7FFF0000)))
"""
THREADS = """
threading.stack_size(1 << 16)
[threading.Thread(target=time.sleep, args=(600,), daemon=True).start() for _ in range(300)]
"""


@contextmanager
def doing(code: str) -> Iterator[tuple[Process, IO[bytes], IO[bytes]]]:
    """Runs some code in a process, which says when it is done and then waits; it may say more, and wait, in between."""
    say = "say = lambda: (print(flush=True), sys.stdin.readline())"
    words = [sys.executable, "-c", f"import os, resource, sys, threading, time\n{say}\n{code}\nsay()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        with Counting(Target(pid=process.pid, start_ticks=0), Door()) as found:
            yield found, process.stdin, process.stdout
        process.kill()


class Counting(Process):
    """Counts how often a status was read."""

    read_statuses = 0

    def status(self, name: str = "status") -> dict[str, str]:
        self.read_statuses += 1
        return super().status(name)


def test_who_opens_very_much_between_two_stops_is_not_looked_at_whole_while_it_stands_still(root: None) -> None:
    with doing(OPEN) as (process, stdin, stdout):
        belongings = Belongings(Door(), process)
        assert belongings.refusal(process.mappings()) is None
        assert belongings.new() == []
        stdin.write(b"\n")
        stdin.flush()
        stdout.readline()
        assert len(belongings.new()) == 1
        assert "more than 1000 files open" in str(belongings.refusal(process.mappings()))


@pytest.mark.parametrize(("count", "length"), [(40, 1), (4, 4000)], ids=["many", "long"])
def test_so_many_or_so_long_filters_that_they_would_take_long_in_each_stop_are_a_reason(
    root: None, count: int, length: int
) -> None:
    with (
        doing(FILTERS.format(count=count, length=length)) as (process, *_),
        pytest.raises(Refused, match="so many seccomp filters, or so long ones"),
    ):
        Permits.of(process, Stops(0.1))


def test_some_filters_are_no_reason(root: None) -> None:
    with doing(FILTERS.format(count=20, length=100)) as (process, *_):
        assert len(Permits.of(process, Stops(0.1)).filters) == 4


def test_of_a_guest_with_very_many_threads_none_is_looked_at(root: None) -> None:
    with doing(THREADS) as (process, *_):
        with pytest.raises(Refused, match=f"more than {MOST_THREADS} threads"):
            look(Door(), process, 8 << 20)
        assert isinstance(process, Counting)
        assert process.read_statuses == 0


class Watching(Process):
    """Notes which merged pages are read while the guest runs, and which only once it stands still."""

    def __init__(self, one: Writer) -> None:
        self._one, self.running, self.late = one, set[int](), set[int]()
        super().__init__(target(one), Door())

    def read(self, buffers: list[memoryview], address: int) -> int:  # type: ignore[override] # it is given lists
        if any(mapping.merged and mapping.start <= address < mapping.end for mapping in self.mappings()):
            if runs_freely(self._one):
                self.running.add(address)
            elif address not in self.running:
                self.late.add(address)
        return super().read(buffers, address)


def test_what_may_be_in_swap_is_read_before_a_guest_is_stopped_and_others_have_their_turn(root: None) -> None:
    remapper = Remapper(Door(), for_scanner(SLOW))
    remapper.turn_seconds = 0.0
    with writers(1) as (one,):
        merge_once(remapper, one)
        with Watching(one) as process:
            before = merged_bytes(one, 0, 1 << 47)
            wait_true(lambda: "have their turn" in str(result(remapper.give_back(process))), "end of its turn")
            assert 0 < merged_bytes(one, 0, 1 << 47) < before
            assert process.running
            assert not process.late
        remapper.turn_seconds = 60.0
        with Process(target(one), Door()) as process:
            wait_true(lambda: result(remapper.give_back(process)) is None, "pages given back")
        assert not stores(one)
        assert one.check()["wrong"] == 0


class OneByOne(Remapper):
    """Gives back one mapping in each turn, of which the guest has some."""

    def __init__(self, mapped: list[mmap.mmap]) -> None:
        super().__init__(Door(), for_scanner(Scan(reclaim="remap")))
        self.mapped, self.asked = mapped, list[int]()

    def give_back(self, process: Process) -> Generator[int, None, str | None]:
        self.asked.append(process.target.pid)
        if process.target.pid == os.getpid() and self.mapped:
            self.mapped.pop().close()
        yield 1
        return "it goes on"


@pytest.mark.parametrize("why", ["run=2", "leaving"])
def test_who_has_much_to_be_given_back_keeps_nobody_waiting_and_gets_all_at_once(root: None, why: str) -> None:
    memfd = os.memfd_create("ksmtuned-py-pages-much")
    os.truncate(memfd, 8 * PAGE)
    mapped = [mmap.mmap(memfd, PAGE, flags=mmap.MAP_PRIVATE, offset=2 * number * PAGE) for number in range(3)]
    os.close(memfd)
    with doing("") as (other, *_):
        merger = OneByOne(mapped)
        scanner = Scanner(Door(), for_scanner(Scan(reclaim="remap")), merger)
        pids = [os.getpid(), other.target.pid]
        scanner.watch([Target(pid=pid, start_ticks=0, remap=True) for pid in pids])
        if why == "leaving":
            scanner.watch([Target(pid=pid, start_ticks=0, merge=False) for pid in pids])
        for done in scanner.give_back() if why == "run=2" else scanner.steps():
            if not done:  # the end of a pass
                break
        assert merger.asked == pids * 3
