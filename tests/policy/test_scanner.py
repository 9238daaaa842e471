"""The scanner's oversleep and costs are measured from ksmd itself."""

import pytest

from ksmtuned_py.model import Counters, Knobs, Run
from ksmtuned_py.policy.scanner import ScannerSpeed
from tests.support.snapshots import snapshot


def test_cost_per_page_is_measured() -> None:
    knobs = Knobs(run=Run.MERGE, pages_to_scan=1000, sleep_millisecs=20)
    before = snapshot(at=0, cpu_seconds=0.0, counters=Counters(pages_scanned=0), knobs=knobs)
    now = snapshot(at=1, cpu_seconds=0.1, counters=Counters(pages_scanned=40_000), knobs=knobs)
    scanner = ScannerSpeed(cost_seconds=2.5e-6).after(before, now)
    assert scanner.share == pytest.approx(0.1)
    assert scanner.cost_seconds == pytest.approx(2.5e-6)
    # 40 batches in 0.9 idle seconds: 22.5 ms for a sleep of 20 ms, and half of that is taken on
    assert scanner.oversleep_seconds == pytest.approx((0.003 + 0.0025) / 2)


def test_the_slack_of_sleep_is_learned_though_each_look_sets_the_batch_anew() -> None:
    before = snapshot(
        at=0, counters=Counters(pages_scanned=0), knobs=Knobs(run=Run.MERGE, pages_to_scan=900, sleep_millisecs=17)
    )
    knobs = Knobs(run=Run.MERGE, pages_to_scan=1000, sleep_millisecs=17)
    now = snapshot(at=1, cpu_seconds=0.1, counters=Counters(pages_scanned=37_500), knobs=knobs)
    assert ScannerSpeed().after(before, now).oversleep_seconds == pytest.approx((0.003 + 0.007) / 2)


def test_a_scanner_that_waited_for_a_cpu_did_not_oversleep() -> None:
    """The same sleeps and batches, but that half of the time others had its CPU."""
    knobs = Knobs(run=Run.MERGE, pages_to_scan=1000, sleep_millisecs=20)
    before = snapshot(at=0, counters=Counters(pages_scanned=0), knobs=knobs, scanner_waited_seconds=3.0)
    counters = Counters(pages_scanned=40_000)
    alone = snapshot(at=1, cpu_seconds=0.1, counters=counters, knobs=knobs, scanner_waited_seconds=3.0)
    starved = snapshot(at=2, cpu_seconds=0.1, counters=counters, knobs=knobs, scanner_waited_seconds=4.0)
    assert ScannerSpeed().after(before, starved).oversleep_seconds == pytest.approx(
        ScannerSpeed().after(before, alone).oversleep_seconds
    )


def test_a_kernel_without_the_figures_keeps_the_defaults() -> None:
    before, now = snapshot(at=0, cpu_seconds=None), snapshot(at=1, cpu_seconds=None)
    assert ScannerSpeed().after(before, now) == ScannerSpeed()
    assert (
        ScannerSpeed().after(snapshot(at=0), snapshot(at=1, cpu_seconds=0.5)).cost_seconds
        == ScannerSpeed().cost_seconds
    )
