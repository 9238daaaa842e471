"""The advisor policy, on the model of ksmd with the kernel's advisor in it."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.backends.model import ModelBackend
from ksmtuned_py.config import Config
from ksmtuned_py.host import Host
from ksmtuned_py.ksmdmodel.guestmemory import equal, unique
from ksmtuned_py.ksmdmodel.modelhost import ModelHost
from ksmtuned_py.ksmdmodel.settings import LINUX_6_1
from ksmtuned_py.model import AdvisorMode, Clock, Counters, ForeignWrite, Knobs, Mode, Run, Write, WriteStatus
from ksmtuned_py.policy import decide
from ksmtuned_py.policy.advisor import CPU_OUT_OF_REACH, SETTLING_PASSES, NoAdvisor
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.report import Report
from ksmtuned_py.tick import tick
from ksmtuned_py.units import GIB
from tests.support.snapshots import guest, snapshot

PAGES_OF_GIB = GIB // 4096
CONFIG = Config.model_validate({"policy": {"name": "advisor"}})


def busy_host() -> ModelHost:
    """A host with 40 GiB of guests. Half of it is merged by a ksmd that has used an hour of CPU time."""
    model = ModelHost(total_bytes=256 * GIB)
    for number in range(10):
        model.add_guest(f"guest-{number}", (equal("os", 2 * PAGES_OF_GIB), unique(2 * PAGES_OF_GIB)))
    for knob, value in (("run", 1), ("pages_to_scan", 100_000), ("sleep_millisecs", 1)):
        model.write(Write(knob=knob, old=0, new=value))  # type: ignore[arg-type]  # names of knobs, all of them
    model.advance(3600)
    assert model.scanner_cpu_seconds() > 3000
    return model


def ticks(model: ModelHost, seconds: float, config: Config = CONFIG) -> Iterator[Report]:
    """The reports of the policy at work for so many seconds."""
    now = 0.0
    backend = ModelBackend(model, lambda: now)
    host = Host(backend, backend, lambda: Clock(monotonic_seconds=now, unix_seconds=now))
    trend = Trend.begin(config)
    while now < seconds:
        report = tick(host, config, trend)
        trend = report.trend
        yield report
        now += report.decision.next_tick_seconds


def pass_seconds(reports: list[Report]) -> list[float]:
    """The seconds that each pass took, to the tick."""
    ends = [
        after.snapshot.clock.monotonic_seconds
        for before, after in pairwise(reports)
        if after.snapshot.counters.full_scans > before.snapshot.counters.full_scans
    ]
    return [end - begin for begin, end in pairwise(ends)]


def test_it_takes_the_target_time_where_the_bare_advisor_burns_a_tenth_of_a_core() -> None:
    bare = busy_host()
    bare.write(Write(knob="sleep_millisecs", old=1, new=20))
    bare.write(Write(knob="advisor_mode", old="none", new="scan-time"))
    cpu = bare.scanner_cpu_seconds()
    bare.advance(4 * 3600)
    bare_cpu = bare.scanner_cpu_seconds() - cpu

    steered = busy_host()
    cpu = steered.scanner_cpu_seconds()
    reports = list(ticks(steered, 4 * 3600))
    steered_cpu = steered.scanner_cpu_seconds() - cpu
    assert bare_cpu > 0.1 * 4 * 3600
    assert steered_cpu < bare_cpu / 3
    assert all(40 <= seconds <= 400 for seconds in pass_seconds(reports))
    assert [report.snapshot.foreign for report in reports if report.snapshot.foreign] == []
    results = [result for report in reports for result in report.outcome.results]
    assert {result.status for result in results} == {WriteStatus.OK}
    assert len(results) < len(reports) / 10, "its bound is written seldom"


def test_it_holds_the_advisor_until_its_average_has_settled_and_then_lets_it_go() -> None:
    reports = list(ticks(busy_host(), 3600))
    rules = [report.decision.rule for report in reports]
    assert list(dict.fromkeys(rules)) == ["advisor_start", "advisor_settles", "advisor"]
    fixed = [report.snapshot for report in reports if report.decision.rule == "advisor_settles"]
    assert fixed[-1].counters.full_scans - fixed[0].counters.full_scans == SETTLING_PASSES - 1
    assert len({seen.knobs.pages_to_scan for seen in fixed}) == 1, "lifetime CPU does not count meanwhile"
    assert fixed[0].knobs.advisor_max_cpu == CPU_OUT_OF_REACH
    last = reports[-1].snapshot.knobs
    assert (last.advisor_mode, last.advisor_max_cpu, last.advisor_target_scan_time) == ("scan-time", 70, 200)


def test_it_is_started_anew_when_guests_come_that_it_would_take_hours_to_notice() -> None:
    model = busy_host()
    reports = []
    for report in ticks(model, 3600):
        reports.append(report)
        if len(reports) == 300:
            for number in range(25):
                model.add_guest(f"late-{number}", (unique(4 * PAGES_OF_GIB),))
    rules = [report.decision.rule for report in reports[300:]]
    assert rules[:2] == ["advisor_restart", "advisor_start"]
    assert (reports[303].snapshot.knobs.pages_to_scan or 0) > 2 * (reports[299].snapshot.knobs.pages_to_scan or 0)


def test_one_that_was_on_before_is_started_anew() -> None:
    model = busy_host()
    model.write(Write(knob="advisor_mode", old="none", new="scan-time"))
    rules = [report.decision.rule for report in ticks(model, 5)]
    assert rules[:3] == ["advisor_restart", "advisor_start", "advisor_settles"]


def test_short_memory_asks_for_shorter_passes() -> None:
    calm = next(ticks(busy_host(), 1)).decision.knobs
    short = Config.model_validate({"policy": {"name": "advisor"}, "adaptive": {"need": {"short_enter_percent": 99}}})
    assert (next(ticks(busy_host(), 1, short)).decision.knobs.advisor_min_pages_to_scan or 0) > 5 * (
        calm.advisor_min_pages_to_scan or 0
    )


def test_a_kernel_without_the_advisor_is_an_error_with_a_hint() -> None:
    model = ModelHost(features=LINUX_6_1)
    with pytest.raises(NoAdvisor) as caught:
        next(ticks(model, 1))
    assert "6.8" in caught.value.hint


@given(
    st.sampled_from(["none", "scan-time"]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**50),
    st.integers(0, 2**40),
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 10**9)), max_size=12),
)
def test_whatever_it_sees_it_stays_in_its_bounds(
    mode: AdvisorMode, pages: int, guest_bytes: int, available: int, passes: list[tuple[int, int]]
) -> None:
    trend, at, counters = Trend.begin(CONFIG), 0.0, Counters()
    for more, scanned in [(0, 0), *passes]:
        at += 10
        counters = Counters(
            full_scans=counters.full_scans + more, pages_scanned=(counters.pages_scanned or 0) + scanned
        )
        knobs = Knobs(run=Run.MERGE, pages_to_scan=pages, sleep_millisecs=20, advisor_mode=mode)
        guests = (guest(rss_bytes=guest_bytes),)
        now = snapshot(at=at, knobs=knobs, counters=counters, guests=guests, available_bytes=available)
        trend = trend.after(now, CONFIG)
        wanted = decide(now, trend, CONFIG).knobs
        assert wanted.pages_to_scan is None, (
            "EINVAL while the advisor is on, and a foreign write once it has changed it"
        )
        for value in (wanted.advisor_min_pages_to_scan, wanted.advisor_max_pages_to_scan):
            assert value is None or 1 <= value <= CONFIG.advisor.max_pages_to_scan


@pytest.mark.parametrize("name", ["adaptive", "advisor", "fixed", "ksmtuned", "mom", "kubevirt"])
def test_every_policy_keeps_its_hands_off_while_somebody_else_writes(name: str) -> None:
    config = Config.model_validate({"policy": {"name": name}})
    trend = Trend.begin(config).after(snapshot(at=0), config)
    disturbed = replace(snapshot(at=1), foreign=(ForeignWrite(knob="run", ours=1, seen=0),))
    trend = trend.after(disturbed, config)
    decision = decide(disturbed, trend, config)
    assert (decision.mode, decision.rule, decision.knobs) == (Mode.HELD, "foreign_writer", Knobs())
