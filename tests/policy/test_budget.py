"""The CPU budget holds, on a kernel that counts the pages it scans, and on one that does not."""

from dataclasses import replace

import pytest

from ksmtuned_py.backends.model import ModelBackend
from ksmtuned_py.config import Config
from ksmtuned_py.host import Host
from ksmtuned_py.ksmdmodel.costs import Costs
from ksmtuned_py.ksmdmodel.guestmemory import equal, unique, zero
from ksmtuned_py.ksmdmodel.modelhost import ModelHost
from ksmtuned_py.ksmdmodel.settings import LINUX_6_1, LINUX_6_12, Features
from ksmtuned_py.model import Clock, Counters, Knobs, Mode, Run, Snapshot, Write
from ksmtuned_py.policy.batch import BATCH_MAX_SECONDS, BATCH_SECONDS, batch_for
from ksmtuned_py.policy.scanner import Pass, ScannerSpeed
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.tick import tick
from ksmtuned_py.units import GIB, KIB
from tests.support.snapshots import snapshot

GUESTS, GUEST_BYTES = 4, 4 * GIB
BOOST, CRUISE = 0.6, 0.002
"""The default profile's shares of a core while memory is calm."""
COSTS = Costs()
LARGE_PAGES = 64 * KIB
LARGE_COSTS = replace(
    COSTS,
    **{
        name: 16 * getattr(COSTS, name)
        for name in ("first_ns", "checksum_ns", "merge_ns", "stable_level_ns", "unstable_level_ns")
    },
)
"""The costs of a kernel in which all that reads a page takes longer."""


@pytest.mark.parametrize("features", [LINUX_6_1, LINUX_6_12], ids=["6.1", "6.12"])
@pytest.mark.parametrize(("page_bytes", "costs"), [(4 * KIB, COSTS), (LARGE_PAGES, LARGE_COSTS)], ids=["4K", "64K"])
def test_ksmd_gets_its_budget_and_no_more(features: Features, page_bytes: int, costs: Costs) -> None:
    shares = spent(ModelHost(features=features, page_bytes=page_bytes, costs=costs), seconds=400)
    assert shares[Mode.BOOST] == pytest.approx(BOOST, rel=0.2)
    assert 0 < shares[Mode.REST] <= 1.2 * CRUISE


def spent(model: ModelHost, seconds: float) -> dict[Mode, float]:
    """ksmd's share of a core in each mode, with guests in which every second page has a twin."""
    now = 0.0
    pages = GUEST_BYTES // model.page_bytes
    for number in range(GUESTS):
        model.add_guest(str(number), [equal("os", pages // 4), zero(pages // 8), unique(pages * 5 // 8)])
    backend = ModelBackend(model, lambda: now)
    host = Host(backend, backend, lambda: Clock(monotonic_seconds=now, unix_seconds=now))
    config = Config()
    trend = Trend.begin(config)
    cpu, wall = dict.fromkeys(Mode, 0.0), dict.fromkeys(Mode, 0.0)
    while now < seconds:
        report = tick(host, config, trend)
        trend, decision, before = report.trend, report.decision, model.scanner_cpu_seconds()
        now += decision.next_tick_seconds
        backend.counters()  # reading makes the model catch up
        cpu[decision.mode] += model.scanner_cpu_seconds() - before
        wall[decision.mode] += decision.next_tick_seconds
    return {mode: cpu[mode] / wall[mode] for mode in Mode if wall[mode]}


def test_pages_that_were_nearly_all_passed_over_do_not_end_the_scan() -> None:
    """Of guests that have but zero pages in common smart_scan skips all at once: such a pass has CPU, and no pages."""
    now, model, config = 0.0, ModelHost(), Config()
    pages = GIB // model.page_bytes
    for number in range(GUESTS):
        model.add_guest(str(number), [zero(pages * 2 // 5), unique(pages * 3 // 5)])
    model.write(Write(knob="use_zero_pages", old=0, new=1))
    backend = ModelBackend(model, lambda: now)
    host, trend = Host(backend, backend, lambda: Clock(monotonic_seconds=now, unix_seconds=now)), Trend.begin(config)
    passes: list[int] = []
    while now < 200_000:
        trend = tick(host, config, trend).trend
        passes.append(trend.passes.done)
        now += 60
    assert passes[-1] >= passes[len(passes) // 2] + 9  # the pages were of age again, and scanned


def uncounted(at: float, cpu: float, full_scans: int = 0) -> Snapshot:
    """A snapshot of a kernel that has a million pages, and does not count those it scans."""
    counters = Counters(full_scans=full_scans, pages_unshared=1_000_000)
    knobs = Knobs(run=Run.MERGE, pages_to_scan=5000, sleep_millisecs=17)
    return snapshot(at=at, cpu_seconds=cpu, counters=counters, knobs=knobs)


def test_pages_that_nobody_counts_are_as_many_as_the_sleep_left_time_for() -> None:
    """20 batches of 5000 pages fit in 0.4 s of sleep. They take 0.4 s of CPU, so a page costs 4 us."""
    found = ScannerSpeed(cost_seconds=4e-6).after(uncounted(0, 0), uncounted(0.8, 0.4))
    assert found.cost_seconds == pytest.approx(4e-6)
    assert found.share == pytest.approx(0.5)


def test_the_last_batch_of_a_pass_is_a_short_one() -> None:
    found = ScannerSpeed(cost_seconds=4e-6).after(uncounted(0, 0), uncounted(0.76, 0.36, full_scans=4))
    assert found.cost_seconds == pytest.approx(4e-6, rel=0.001)


def test_a_pass_scans_no_more_pages_than_there_are() -> None:
    """Batches that are each a whole pass over a few pages do not make pages cost nothing."""
    knobs, few = Knobs(run=Run.MERGE, pages_to_scan=1_000_000, sleep_millisecs=17), Counters(pages_unshared=10_000)
    before = snapshot(at=0, cpu_seconds=0, counters=few, knobs=knobs)
    now = snapshot(at=1, cpu_seconds=0.8, counters=replace(few, full_scans=10), knobs=knobs)
    assert ScannerSpeed(cost_seconds=8e-6).after(before, now).cost_seconds == pytest.approx(8e-6, rel=0.1)


def test_a_scanner_that_waits_for_a_core_does_not_get_longer_batches() -> None:
    """The scanner had 5 % of a core instead of 60. Its pages cost 4 us each, as in the last pass, and not 0.2."""
    last = Pass(passes=1, seconds=100, cpu_seconds=4, gained_bytes=0, pages=1_000_000)
    scanner, before = ScannerSpeed(cost_seconds=4e-6), uncounted(0, 0)
    for second in range(1, 20):
        now = uncounted(second, second * 0.05)
        scanner, before = scanner.after(before, now, last), now
    batch = batch_for(BOOST, scanner.cost_seconds, scanner.oversleep_seconds)
    assert batch.pages_to_scan * 4e-6 <= 1.01 * BATCH_SECONDS


def test_a_pass_that_nobody_counted_scanned_all_that_is_kept_track_of() -> None:
    trend = Trend.begin(Config())
    for at, scans in ((0, 0), (10, 1), (20, 2)):
        trend = trend.after(uncounted(at, at * 0.4, full_scans=scans), Config())
    assert trend.passes.last
    assert trend.passes.last.page_cost_seconds == pytest.approx(4e-6)


def test_larger_pages_are_taken_to_cost_more_from_the_start() -> None:
    begun = Trend.begin(Config()).after(snapshot(page_bytes=LARGE_PAGES), Config()).scanner
    assert begun.cost_seconds == 16 * ScannerSpeed().cost_seconds


@pytest.mark.parametrize("page_bytes", [4 * KIB, LARGE_PAGES])
def test_a_batch_takes_as_long_with_larger_pages(page_bytes: int) -> None:
    config = Config.model_validate({"adaptive": {"profile": "eager"}})
    model = ModelHost(page_bytes=page_bytes)
    model.add_guest("web", [unique(GIB // page_bytes)])
    backend = ModelBackend(model, lambda: 0.0)
    host = Host(backend, backend, lambda: Clock(monotonic_seconds=0, unix_seconds=0))
    trend, decision = Trend.begin(config), None
    for _ in range(2):
        report = tick(host, config, trend)
        trend, decision = report.trend, report.decision
    assert decision is not None
    assert decision.mode is Mode.BOOST
    assert (decision.knobs.pages_to_scan or 0) * trend.scanner.cost_seconds <= 1.01 * BATCH_MAX_SECONDS
