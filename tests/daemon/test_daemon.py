"""The loop on the model and on made-up trees ticks in time, survives failures, and knows when to give up."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ksmtuned_py.backends.model import ModelBackend
from ksmtuned_py.config import Config, InForce
from ksmtuned_py.daemon.loop import FAILED_TICKS_MAX, Daemon
from ksmtuned_py.daemon.machine import open_machine, small_model
from ksmtuned_py.daemon.thrift import BURST_CPU_SECONDS, PAUSE_MAX_SECONDS, SHARE
from ksmtuned_py.door import Door
from ksmtuned_py.errors import Garbage, TicksFailed
from ksmtuned_py.host import Host
from ksmtuned_py.model import Clock, Mode, Snapshot, Wake
from ksmtuned_py.report import Report
from tests.support.trees import KSM, make_fake_tree, put

Words = frozenset[Wake]
Line = Words | Callable[[], object]
NOTHING: Words = frozenset()
NEW = Config.model_validate({"policy": {"name": "fixed"}, "fixed": {"pages_to_scan": 321}})
"""The configuration that a reload brings."""


class Told:
    """A publisher that remembers the ticks it is told of."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.errors: list[Exception] = []

    def publish(self, report: Report) -> None:
        self.reports.append(report)

    def failed_tick(self, error: Exception) -> None:
        self.errors.append(error)


class Script:
    """A wait that is over at once. The script gives its words, or something that happens meanwhile."""

    def __init__(self, *lines: Line) -> None:
        self._lines: Iterator[Line] = iter(lines)
        self.deadlines: list[float] = []

    def until(self, deadline_seconds: float) -> Words:
        self.deadlines.append(deadline_seconds)
        line = next(self._lines, frozenset({Wake.STOP}))
        if isinstance(line, frozenset):
            return line
        line()
        return NOTHING


def daemon(host: Host, waits: Script, told: Told, new: Config | None = None) -> Daemon:
    """The loop; `new` is the configuration that a reload brings."""
    in_force = InForce(Config())
    return Daemon(host, in_force, waits, told, lambda: in_force.take(new or Config()))


@pytest.fixture
def told() -> Told:
    """A publisher that has been told nothing yet."""
    return Told()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A fake tree."""
    return make_fake_tree(tmp_path)


@pytest.fixture
def host(root: Path) -> Iterator[Host]:
    """The host on the fake tree."""
    with open_machine(Door(str(root)), Config()) as machine:
        yield machine.host


def test_it_ticks_until_it_is_told_to_stop(host: Host, told: Told) -> None:
    daemon(host, Script(NOTHING, frozenset({Wake.ASKED}), frozenset({Wake.PRESSURE, Wake.GUEST})), told).run()
    assert [report.snapshot.woken_by for report in told.reports] == [
        NOTHING,
        NOTHING,
        {Wake.ASKED},
        {Wake.PRESSURE, Wake.GUEST},
    ]


def test_a_stop_that_comes_with_others_stops(host: Host, told: Told) -> None:
    running = daemon(host, Script(frozenset({Wake.STOP, Wake.RELOAD, Wake.GUEST})), told, NEW)
    running.run()
    assert (len(told.reports), running.in_force.config) == (1, Config())


def test_once_is_one_tick(host: Host, told: Told) -> None:
    waits = Script()
    daemon(host, waits, told).run(once=True)
    assert (len(told.reports), waits.deadlines) == (1, [])


def test_the_trend_goes_on_from_tick_to_tick(host: Host, told: Told) -> None:
    daemon(host, Script(NOTHING, NOTHING), told).run()
    assert [report.trend.news.number for report in told.reports] == [1, 1, 1]  # the guests are news once
    assert told.reports[0].outcome.results
    assert told.reports[1].outcome.results == ()  # without a change there is nothing to write


def test_a_deadline_counts_from_the_beginning_of_its_tick_and_may_not_be_too_late(host: Host, told: Told) -> None:
    waits = Script()
    boosting = replace(daemon(host, waits, told), longest_wait_seconds=0.25)
    boosting.run()
    assert told.reports[0].decision.next_tick_seconds == 1.0
    assert 0 <= waits.deadlines[0] - told.reports[0].snapshot.clock.monotonic_seconds <= 0.25


def work(cpu_seconds: float) -> None:
    """Takes so much CPU of this thread."""
    ends = time.thread_time() + cpu_seconds
    while time.thread_time() < ends:
        pass


def test_what_a_tick_takes_to_be_told_counts_at_the_next_but_for_the_first(host: Host) -> None:
    class BusyTold(Told):
        def publish(self, report: Report) -> None:
            super().publish(report)
            work(BURST_CPU_SECONDS + 4 * SHARE)

    told = BusyTold()
    daemon(host, Script(NOTHING, NOTHING), told).run()
    assert [report.decision.next_tick_seconds > 1.5 for report in told.reports] == [False, False, True]


def test_a_tick_that_took_much_cpu_is_told_with_a_longer_pause(host: Host, told: Told) -> None:
    class Busy(Host):
        def look(self) -> Snapshot:
            seen = super().look()
            work(BURST_CPU_SECONDS + 1.5 * SHARE)
            return seen

    waits = Script()
    busy = Busy(host.backend, host._senses)
    daemon(busy, waits, told).run()
    pause_seconds = told.reports[0].decision.next_tick_seconds  # what all surfaces tell, and judge lateness by
    assert 1.5 <= pause_seconds <= PAUSE_MAX_SECONDS
    began = told.reports[0].snapshot.clock.monotonic_seconds
    assert waits.deadlines[0] - began >= pause_seconds - 0.5  # a busy machine makes it longer


def test_a_tick_that_fails_is_told_and_the_next_one_goes_on(root: Path, host: Host, told: Told) -> None:
    waits = Script(
        lambda: put(root, f"{KSM}/pages_sharing", "garbage\n"),
        NOTHING,
        lambda: put(root, f"{KSM}/pages_sharing", "0\n"),
        NOTHING,
    )
    daemon(host, waits, told).run()
    assert [type(error) for error in told.errors] == [Garbage, Garbage]
    assert len(told.reports) == 3
    assert [report.trend.news.number for report in told.reports] == [1, 1, 1]


def test_ticks_that_keep_failing_end_it(root: Path, host: Host, told: Told) -> None:
    with pytest.raises(TicksFailed, match=r"^no tick can be completed: .*pages_sharing: wanted a decimal number"):
        daemon(host, Script(lambda: put(root, f"{KSM}/pages_sharing", "garbage\n"), *[NOTHING] * 99), told).run()
    assert len(told.errors) == FAILED_TICKS_MAX


def test_failed_ticks_count_only_in_a_row(root: Path, host: Host, told: Told) -> None:
    def break_it() -> None:
        put(root, f"{KSM}/pages_sharing", "garbage\n")

    def mend_it() -> None:
        put(root, f"{KSM}/pages_sharing", "0\n")

    row: list[Line] = [break_it, *[NOTHING] * (FAILED_TICKS_MAX - 2), mend_it]
    daemon(host, Script(*row, *row), told).run()
    assert len(told.errors) == 2 * (FAILED_TICKS_MAX - 1)


def test_one_tick_that_fails_is_the_end_of_once(root: Path, host: Host, told: Told) -> None:
    put(root, f"{KSM}/pages_sharing", "garbage\n")
    with pytest.raises(TicksFailed):
        daemon(host, Script(), told).run(once=True)


def test_a_bug_in_a_tick_ends_it_only_when_it_stays(told: Told) -> None:
    class Odd(ModelBackend):
        def scanner_cpu_seconds(self) -> float:
            return float("x")

    backend = Odd(small_model(), lambda: 0.0)
    with pytest.raises(ValueError, match="could not convert"):
        daemon(Host(backend, backend), Script(*[NOTHING] * 99), told).run()
    assert len(told.errors) == FAILED_TICKS_MAX


def test_a_reload_is_heeded_from_its_own_tick_on(host: Host, told: Told) -> None:
    daemon(host, Script(NOTHING, frozenset({Wake.RELOAD}), NOTHING), told, NEW).run()
    assert [report.decision.mode for report in told.reports] == [Mode.BOOST, Mode.BOOST, Mode.PINNED, Mode.PINNED]
    assert host.backend.knobs().pages_to_scan == 321


def test_another_mode_is_another_beginning(root: Path, host: Host, told: Told) -> None:
    def change_it() -> None:
        put(root, f"{KSM}/pages_to_scan", "5\n")

    watching = Config.model_validate({"daemon": {"mode": "observe"}})
    daemon(host, Script(change_it, frozenset({Wake.RELOAD})), told, watching).run()
    assert [report.decision.mode for report in told.reports] == [Mode.BOOST, Mode.HELD, Mode.BOOST]


def test_a_tick_leaves_as_much_time_as_it_took(host: Host) -> None:
    class Slow(Told):
        def publish(self, report: Report) -> None:
            super().publish(report)
            time.sleep(0.3)

    waits, told = Script(), Slow()
    quick = InForce(Config.model_validate({"daemon": {"tick_seconds": 0.01, "idle_tick_seconds": 0.01}}))
    Daemon(host, quick, waits, told).run()
    assert waits.deadlines[0] - told.reports[0].snapshot.clock.monotonic_seconds >= 0.55


def test_a_slow_tick_is_still_in_time_for_the_watchdog(host: Host) -> None:
    class Slow(Told):
        def publish(self, report: Report) -> None:
            super().publish(report)
            time.sleep(0.3)

    waits, told = Script(), Slow()
    Daemon(host, InForce(Config()), waits, told, longest_wait_seconds=0.35).run()
    assert waits.deadlines[0] - told.reports[0].snapshot.clock.monotonic_seconds < 0.5


def test_the_model_is_merged_by_the_loop_alone(told: Told) -> None:
    now = [0.0]

    def clock() -> Clock:
        return Clock(monotonic_seconds=now[0], unix_seconds=now[0])

    def pass_time() -> None:
        now[0] += 1

    model = small_model()
    backend = ModelBackend(model, lambda: now[0])
    daemon(Host(backend, backend, clock), Script(*[pass_time] * 60), told).run()
    assert told.errors == []
    achieved = told.reports[-1].snapshot.counters.saved_pages / model.mergeable_pages()
    assert achieved >= 0.95
    assert told.reports[-1].decision.mode in (Mode.CRUISE, Mode.REST)
