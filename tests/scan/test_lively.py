"""Guests that go on with their lives while they are merged: each works with every byte right, or is refused by name."""

import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ksmtuned_py.backends.scan import ScanBackend
from ksmtuned_py.door import Door
from tests.scan.conftest import scanning, told, turn, wait_passes, wait_true
from tests.scan.test_remap import REMAP
from tests.scan.writers import Writer, runs_freely, stores, writers
from tests.support.need import need
from tests.support.process import wait_for

MIB = 16
FORK = ("--fork", "--kill-child")
STOPPED_CALLS = ("nanosleep", "poll", "ppoll", "select", "futex", "epoll", "sigtimedwait", "wait4")
BOTH_ENDS = ("pipe_write", "pipe_read")
MANY_TIMES = 40
"""How often a guest has done each thing, beside being merged, before it is judged."""


def lively(name: str, *words: str, before: Sequence[str] = ()) -> Writer:
    return Writer(name, command=(*before, sys.executable, "-m", "tests.scan.lively", str(MIB), *words))


def seen(one: Writer) -> tuple[dict[str, int], str]:
    """Returns how often the guest did each thing, and what was wrong with any of it."""
    *done, wrong = one.ask("seen").split()
    counts = dict(word.split("=") for word in done if "=" in word)
    return {name: int(count) for name, count in counts.items()}, wrong.removeprefix("wrong=")


def goes_on(one: Writer, names: Sequence[str], times: int = MANY_TIMES) -> None:
    """Waits until the guest has done each thing so many times more, with nothing wrong."""
    begun = seen(one)[0]

    def has() -> bool:
        now, wrong = seen(one)
        assert wrong == "none"
        return all(now.get(name, 0) >= begun.get(name, 0) + times for name in names)

    wait_true(has, f"{', '.join(names)}, {times} times")
    assert one.check()["wrong"] == 0


@contextmanager
def beside_others(door: Door, one: Writer) -> Iterator[tuple[ScanBackend, list[Writer]]]:
    """Yields a backend at work on the guest and two plain ones, which must go on whatever becomes of it."""
    with writers(2, MIB) as others, scanning(door, REMAP, [one, *others], sleep_millisecs=0) as backend:
        yield backend, others
        wait_true(lambda: bool(stores(others[0]) & stores(others[1])), "pages shared by the others")
        wait_passes(backend, 2)
        assert [other.check()["wrong"] for other in others] == [0, 0]
        assert backend.restarts == 0


@pytest.mark.parametrize("what", [("fork",), ("vfork",), ("churn",), ("stack",)])
def test_what_a_guest_does_beside_is_right_while_it_is_merged(root: None, no_ksm: Door, what: tuple[str, ...]) -> None:
    with lively("one", *what) as one, beside_others(no_ksm, one) as (backend, _):
        wait_true(lambda: bool(stores(one)), "shared pages")
        goes_on(one, what, 10 if what == ("churn",) else MANY_TIMES)
        turn(backend, "run", 2)
        wait_true(lambda: not stores(one), "pages given back")
        goes_on(one, what, 2)
        turn(backend, "run", 1)


def test_threads_that_come_and_go_all_the_time_keep_it_from_merging_at_most(root: None, no_ksm: Door) -> None:
    changing = ("changing all the time", "begin and end faster", "too many processes have begun", "have changed")
    with lively("one", "thread") as one, beside_others(no_ksm, one) as (backend, _):
        wait_true(
            lambda: bool(stores(one)) or any(told(backend, words) for words in changing), "shared pages, or a reason"
        )
        goes_on(one, ["thread"])


def test_a_child_with_the_same_memory_that_comes_and_goes_does_no_harm(root: None, no_ksm: Door) -> None:
    with lively("one", "clone") as one, beside_others(no_ksm, one):
        goes_on(one, ["clone"])


def test_calls_that_a_stop_interrupts_return_what_they_must(root: None, no_ksm: Door) -> None:
    with lively("one", *STOPPED_CALLS, *BOTH_ENDS) as one, beside_others(no_ksm, one):
        wait_true(lambda: bool(stores(one)), "shared pages")
        goes_on(one, [*STOPPED_CALLS, *BOTH_ENDS], 4 * MANY_TIMES)


def test_so_they_do_when_the_worker_is_killed_in_the_midst(root: None, no_ksm: Door) -> None:
    chance = random.Random(5)
    with lively("one", *STOPPED_CALLS, *BOTH_ENDS) as one:
        for _ in range(10):
            with scanning(no_ksm, REMAP, [one], sleep_millisecs=0) as backend:
                wait_true(lambda: bool(backend.window_milliseconds), "first stop")
                time.sleep(chance.uniform(0, 0.3))
                os.kill(backend.worker_pid, signal.SIGKILL)
                wait_for(lambda: runs_freely(one), 5.0, "guest that runs freely")
            goes_on(one, [*STOPPED_CALLS, *BOTH_ENDS], 2)


def test_calls_of_32_bit_programs_are_a_reason(root: None, no_ksm: Door) -> None:
    """Begun again after a kill of ours, such a call would be another one: their numbers are not the same."""
    with lively("narrow", "narrow") as one, beside_others(no_ksm, one) as (backend, _):
        wait_true(lambda: told(backend, "narrow: one of its threads makes 32-bit system calls"), "reason")
        goes_on(one, ["narrow"])
        assert not stores(one)


def test_calls_by_the_numbers_of_x32_do_no_harm(root: None, no_ksm: Door) -> None:
    with lively("one", "x32") as one, beside_others(no_ksm, one):
        wait_true(lambda: bool(stores(one)), "shared pages")
        goes_on(one, ["x32"])


def test_a_thread_in_a_restartable_sequence_is_a_reason(root: None, no_ksm: Door) -> None:
    with lively("one", "restartable") as one, beside_others(no_ksm, one) as (backend, _):
        wait_true(lambda: told(backend, "one: one of its threads is in a restartable sequence"), "reason")
        assert one.check()["wrong"] == 0
        assert not stores(one)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("AS=0", "mmap in it failed: Cannot allocate memory"),
        ("NOFILE=0", "socketpair in it failed: Too many open files"),
        ("locked=now", "memory that it maps is locked (mlockall)"),
        ("locked=on-fault", "memory that it maps is locked (mlockall)"),
    ],
)
def test_a_guest_whose_limits_leave_no_room_for_us_is_refused(
    root: None, no_ksm: Door, words: str, reason: str
) -> None:
    with lively("limited", words) as one:
        if "locked" not in words:
            one.ask(words)
        before = left_behind(one)
        with beside_others(no_ksm, one) as (backend, _):
            wait_true(lambda: told(backend, f"limited: {reason}"), "reason")
            wait_passes(backend, 2)
            assert one.check()["wrong"] == 0
            assert not stores(one)
            wait_for(lambda: left_behind(one) == before, 5.0, "guest without anything of ours")


def test_a_guest_that_locks_what_it_will_map_is_left_alone_from_then_on(root: None, no_ksm: Door) -> None:
    with lively("locking", "locked=later") as one, beside_others(no_ksm, one) as (backend, _):
        wait_true(lambda: bool(stores(one)), "shared pages")
        one.ask("lock")
        wait_true(lambda: told(backend, "locking: memory that it maps is locked (mlockall)"), "reason")
        locked = locked_kib(one)
        wait_passes(backend, 3)
        assert locked_kib(one) == locked
        assert one.check()["wrong"] == 0


def locked_kib(one: Writer) -> int:
    return int(Path(f"/proc/{one.pid}/status").read_text().split("VmLck:")[1].split()[0])


def test_a_guest_that_may_lock_nothing_is_merged(root: None, no_ksm: Door) -> None:
    with lively("one") as one, beside_others(no_ksm, one):
        one.ask("MEMLOCK=0")
        wait_true(lambda: bool(stores(one)), "shared pages")
        assert one.check()["wrong"] == 0


def left_behind(one: Writer) -> tuple[int, bool]:
    """Returns how many descriptors the guest has, and whether it maps anything of ours."""
    maps = Path(f"/proc/{one.pid}/maps").read_text()
    return len(list(Path(f"/proc/{one.pid}/fd").iterdir())), "ksmtuned-py" in maps


class Inside(Writer):
    """A guest that another program has begun: it is that program's child."""

    @property
    def pid(self) -> int:
        return psutil.Process(self.process.pid).children()[0].pid


@pytest.mark.parametrize("kind", ["--pid", "--mount", "--ipc", "--net"])
def test_a_guest_in_a_namespace_of_its_own_is_merged(root: None, no_ksm: Door, kind: str) -> None:
    command = ("unshare", kind, *FORK, sys.executable, "-m", "tests.scan.lively", str(MIB))
    with Inside("inside", command=command) as one, beside_others(no_ksm, one):
        wait_true(lambda: bool(stores(one)), "shared pages")
        assert one.check()["wrong"] == 0


def test_root_of_a_user_namespace_is_refused(root: None, no_ksm: Door) -> None:
    with lively("inside", "rooted") as one, beside_others(no_ksm, one) as (backend, _):
        wait_true(lambda: told(backend, "inside: it has capabilities of root's"), "reason")
        assert not stores(one)


def test_a_guest_in_a_directory_that_it_cannot_leave_is_merged(root: None, no_ksm: Door, tmp_path: Path) -> None:
    with lively("jailed", f"jailed={tmp_path}") as one, beside_others(no_ksm, one):
        wait_true(lambda: bool(stores(one)), "shared pages")
        assert Path(f"/proc/{one.pid}/root").readlink() == tmp_path
        assert one.check()["wrong"] == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("watched=open", "its missing pages are handled by userfaultfd"),
        ("watched=elsewhere", "a mapping of it has the flag um, which we cannot restore"),
        ("keyed", "a mapping of it has the flag protection key 1, which we cannot restore"),
        ("named=multifdsend_0", "it is being migrated, or a snapshot of it is taken"),
    ],
)
def test_memory_that_is_handled_in_another_way_is_a_reason(root: None, no_ksm: Door, words: str, reason: str) -> None:
    if words == "keyed":
        need(" ospke" in Path("/proc/cpuinfo").read_text(), "a processor with protection keys")
    with lively("odd", words) as one, beside_others(no_ksm, one) as (backend, _):
        wait_true(lambda: told(backend, f"odd: {reason}"), "reason")
        assert one.check()["wrong"] == 0
        if words != "keyed":  # the rest of its memory has no key
            assert not stores(one)


def test_memory_that_gets_a_protection_key_after_it_was_merged_keeps_it(root: None, no_ksm: Door) -> None:
    need(" ospke" in Path("/proc/cpuinfo").read_text(), "a processor with protection keys")
    with lively("keyed", "keyed=later") as one, beside_others(no_ksm, one) as (backend, _):
        wait_true(lambda: bool(stores(one)), "shared pages")
        wait_passes(backend, 2)
        turn(backend, "run", 0)
        begin, size, key = map(int, one.ask("key").split())
        turn(backend, "run", 1)
        wait_passes(backend, 3)
        assert keys(one, begin, size) == {key}
        assert one.check()["wrong"] == 0


def keys(one: Writer, begin: int, size: int) -> set[int]:
    """Returns the protection keys of that memory."""
    found, start, end = set(), 0, 0
    for line in Path(f"/proc/{one.pid}/smaps").read_text().splitlines():
        name, *words = line.split()
        if name == "ProtectionKey:" and start < begin + size and end > begin:
            found.add(int(words[0]))
        elif not name.endswith(":"):
            start, end = (int(word, 16) for word in name.split("-"))
    return found


def test_pages_of_hugetlbfs_are_left_alone(root: None, no_ksm: Door) -> None:
    pool = Path("/proc/sys/vm/nr_hugepages")
    before = pool.read_text()
    pool.write_text(str(int(before) + 8))
    try:
        with lively("one", "huge") as one, beside_others(no_ksm, one):
            wait_true(lambda: bool(stores(one)), "shared pages")
            goes_on(one, ["huge"])
    finally:
        pool.write_text(before)


class Execing(Writer):
    """A guest that becomes another program every second, and tells a file how often."""

    def __init__(self, name: str, told: Path, how: str) -> None:
        super().__init__(name, command=(sys.executable, "-m", "tests.scan.execing", str(MIB), how, str(told)))
        self._told = told

    def times(self) -> int:
        assert "wrong" not in self._told.read_text()
        return len(self._told.read_text())


@pytest.mark.parametrize("how", ["leader", "thread"])
def test_a_guest_that_calls_exec_again_and_again_goes_on(root: None, no_ksm: Door, tmp_path: Path, how: str) -> None:
    told = tmp_path / "told"
    told.touch()
    with Execing("execing", told, how) as one, beside_others(no_ksm, one):
        begun = one.times()
        wait_true(lambda: one.times() >= begun + 6, "six more programs")
        wait_for(lambda: runs_freely(one), 5.0, "guest that runs freely")
