"""Whatever comes first ends the one wait, and nothing that came is lost."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from ksmtuned_py.daemon.wait import ROUNDS, Signals, Waiter
from ksmtuned_py.model import Wake
from tests.support.process import wait_for

LONG_SECONDS = 30.0
NOTHING: frozenset[Wake] = frozenset()


@pytest.fixture
def signals() -> Iterator[Signals]:
    """The daemon's signals, caught for the length of a test."""
    with closing(Signals()) as signals:
        yield signals


class Programs:
    """A source of programs that start when a test wants it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def start(self, pid: int) -> None:
        os.write(self._write, bytes([pid]))

    def fileno(self) -> int:
        return self._read

    def drain(self) -> set[int]:
        return set(os.read(self._read, 100))

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def programs() -> Iterator[Programs]:
    """The source, before any program has started."""
    with closing(Programs()) as programs:
        yield programs


@pytest.fixture
def urgent() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A descriptor that polls POLLPRI when its other end sends urgent data, as a PSI trigger does."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver = server.accept()[0]
        with receiver:
            yield sender, receiver


def soon(seconds: float = LONG_SECONDS) -> float:
    """A deadline in so many seconds (monotonic)."""
    return time.monotonic() + seconds


def raise_signal(number: signal.Signals) -> None:
    """Send this process a signal, as another process would."""
    os.kill(os.getpid(), number)


def test_nothing_happens_until_the_deadline(signals: Signals) -> None:
    deadline = soon(0.05)
    assert Waiter(signals).until(deadline) == NOTHING
    assert time.monotonic() >= deadline
    assert Waiter(signals).until(deadline) == NOTHING  # the deadline is over already


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (signal.SIGTERM, Wake.STOP),
        (signal.SIGINT, Wake.STOP),
        (signal.SIGHUP, Wake.RELOAD),
        (signal.SIGUSR1, Wake.ASKED),
    ],
)
def test_a_signal_ends_the_wait_also_when_it_came_before(signals: Signals, number: signal.Signals, word: str) -> None:
    raise_signal(number)
    assert Waiter(signals).until(soon()) == {word}


def test_signals_that_come_together_are_all_told(signals: Signals) -> None:
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
        raise_signal(number)
    assert Waiter(signals).until(soon()) == {Wake.RELOAD, Wake.ASKED, Wake.STOP}
    assert Waiter(signals).until(soon(0.01)) == NOTHING


def test_a_signal_while_it_waits(signals: Signals) -> None:
    timer = threading.Timer(0.05, raise_signal, [signal.SIGUSR1])
    timer.start()
    assert Waiter(signals).until(soon()) == {Wake.ASKED}
    timer.join()


def test_a_flood_of_signals_blocks_nobody(signals: Signals) -> None:
    for _ in range(100_000):  # more than a pipe holds
        raise_signal(signal.SIGUSR1)
    waiter = Waiter(signals)
    assert waiter.until(soon()) == {Wake.ASKED}
    wait_for(lambda: waiter.until(soon(0.01)) == NOTHING, 5, "end of the flood")


def test_the_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with closing(Signals()):
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] != before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_a_rise_of_pressure(signals: Signals, urgent: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = urgent
    waiter = Waiter(signals, pressure=receiver.fileno())
    sender.send(b"!", socket.MSG_OOB)
    assert waiter.until(soon()) == {Wake.PRESSURE}


def test_a_trigger_that_is_gone_is_done_without(signals: Signals, urgent: tuple[socket.socket, socket.socket]) -> None:
    _, receiver = urgent
    waiter = Waiter(signals, pressure=receiver.fileno())
    receiver.close()  # from here on its descriptor polls POLLNVAL
    cpu_before = time.thread_time()
    assert waiter.until(soon(0.3)) == NOTHING
    assert time.thread_time() - cpu_before < 0.15  # it slept
    raise_signal(signal.SIGUSR1)
    assert waiter.until(soon()) == {Wake.ASKED}


def test_a_program_that_matters(signals: Signals, programs: Programs) -> None:
    waiter = Waiter(signals, arrivals=programs, heed=lambda pids: 7 in pids)
    programs.start(6)
    programs.start(7)
    assert waiter.until(soon()) == {Wake.GUEST}


def test_programs_that_do_not_matter_are_waited_through(signals: Signals, programs: Programs) -> None:
    asked: list[set[int]] = []

    def heed(pids: set[int]) -> bool:
        asked.append(pids)
        return False

    waiter = Waiter(signals, arrivals=programs, heed=heed)
    programs.start(1)
    assert waiter.until(soon(0.05)) == NOTHING
    assert asked == [{1}]


def test_what_came_is_heard_however_late_it_is(signals: Signals, programs: Programs) -> None:
    waiter = Waiter(signals, arrivals=programs)
    programs.start(1)
    raise_signal(signal.SIGTERM)
    assert waiter.until(soon(-1)) == {Wake.STOP, Wake.GUEST}
    assert waiter.until(soon(-1)) == NOTHING


def test_after_one_that_does_not_matter_programs_are_gathered_and_none_is_lost(
    signals: Signals, programs: Programs
) -> None:
    asked: list[set[int]] = []

    def heed(pids: set[int]) -> bool:
        asked.append(pids)
        return 9 in pids

    waiter = Waiter(signals, arrivals=programs, heed=heed)
    programs.start(1)
    assert waiter.until(soon(0.01)) == NOTHING
    for pid in (2, 3, 9):
        programs.start(pid)
    assert waiter.until(soon()) == {Wake.GUEST}
    assert asked == [{1}, {2, 3, 9}]


def test_a_flood_of_programs_that_matter_leaves_time_for_others(signals: Signals, programs: Programs) -> None:
    """Any user can start hypervisors, or programs with such names, all day long."""
    waiter, ticks, took_seconds = Waiter(signals, arrivals=programs), 0, 0.05
    end = soon(1.5)
    while time.monotonic() < end:
        programs.start(7)
        if waiter.until(end) == {Wake.GUEST}:
            ticks += 1
            time.sleep(took_seconds)  # stands for the tick
    assert 2 <= ticks <= 1.5 / (took_seconds * ROUNDS) + 2


def test_a_signal_does_not_wait_for_programs_to_gather(signals: Signals, programs: Programs) -> None:
    waiter = Waiter(signals, arrivals=programs, heed=lambda _: False)
    programs.start(1)
    assert waiter.until(soon(0.01)) == NOTHING
    programs.start(2)
    raise_signal(signal.SIGTERM)
    assert waiter.until(soon()) == {Wake.STOP}
