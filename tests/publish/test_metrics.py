"""/metrics has all that is known once and nothing that is unknown, and no counter goes backwards."""

import math
import subprocess
import threading
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from ksmtuned_py.model import COUNTER_NAMES, Counters, Guest, GuestKsm, Memory, Mode, Snapshot, Vmstat, WriteStatus
from ksmtuned_py.policy.capacity import Outlook
from ksmtuned_py.policy.comfort import Supply
from ksmtuned_py.policy.forecast import Forecast
from ksmtuned_py.policy.need import Need
from ksmtuned_py.policy.plenty import Plenty
from ksmtuned_py.policy.trend import CopyOnWrite
from ksmtuned_py.publish.catalogue import rows
from ksmtuned_py.publish.climbing import Climbing
from ksmtuned_py.publish.metrics import PREFIX, Metrics
from ksmtuned_py.publish.rows import Standing
from ksmtuned_py.publish.totals import Totals
from ksmtuned_py.report import Report
from ksmtuned_py.units import GIB
from tests.support.prometheus import tool
from tests.support.reports import BARE, FOREIGN, FULL, OUTLOOK, report, result

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


STANDING = Standing(config_hash="0123456789ab", policy="adaptive", profile="quiet", knobs_not_restored=2)


def scraped(*reports: Report, max_guest_series: int = 100, capacity: Outlook | None = None) -> Series:
    """All series after these reports, by name and labels."""
    metrics, totals = Metrics(max_guest_series), Totals(capacity=capacity)
    for each in reports:
        totals = totals.after(each)
        metrics.publish(each, totals, STANDING)
    return parsed(metrics)


def parsed(metrics: Metrics) -> Series:
    found: Series = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found


def value(series: Series, name: str, **labels: str) -> float | None:
    return series.get((PREFIX + name, tuple(sorted(labels.items()))))


def names(series: Series) -> set[str]:
    return {name for name, _ in series if name.startswith(PREFIX)}


def guest(number: int, *, ksm: GuestKsm | None = None, uuid: str = "") -> Guest:
    return Guest(pid=number, start_ticks=number, name=f"vm-{number}", kind="qemu", uuid=uuid, rss_bytes=GIB, ksm=ksm)


def test_before_the_first_tick_there_is_nothing_of_ours() -> None:
    assert names(parsed(Metrics())) == set()


def test_every_row_of_the_catalogue_shows_on_a_host_that_says_everything() -> None:
    shown = names(scraped(report(), report(FULL, result(), foreign=(FOREIGN,), after_seconds=1.0), capacity=OUTLOOK))
    for row in rows(100):
        assert PREFIX + row.name + ("_total" if row.kind == "counter" else "") in shown


def test_names_are_unique_and_in_base_units() -> None:
    catalogue = [row.name for row in rows(100)]
    assert len(set(catalogue)) == len(catalogue)
    assert not [name for name in catalogue if name.endswith(("_total", "_ms", "_percent", "_kib", "_mib", "_usec"))]


def test_every_counter_of_ksm_is_there() -> None:
    shown = scraped(report())
    for name in COUNTER_NAMES:
        metric = {"general_profit": "profit_bytes"}.get(name, f"ksm_{name.removeprefix('ksm_')}")
        total = value(shown, f"{metric}_total")
        assert (value(shown, metric) if total is None else total) == getattr(FULL.counters, name)


def test_every_line_of_vmstat_is_there() -> None:
    shown = scraped(report())
    for field in fields(Vmstat):
        assert value(shown, f"vmstat_{field.name}_total") == getattr(FULL.vmstat, field.name)


def test_every_knob_is_there() -> None:
    shown = scraped(report())
    for name, setting in FULL.knobs.items():
        if name != "advisor_mode":
            assert value(shown, "knob", knob=name) == setting
    assert value(shown, "advisor_mode", mode="none") == 1
    assert value(shown, "advisor_mode", mode="scan-time") == 0


def test_bytes_seconds_and_ratios() -> None:
    shown = scraped(report(scanner_cpu_seconds=4.0), report())  # these 4 s were spent before the daemon started
    assert value(shown, "saved_bytes") == value(shown, "debt_bytes") == GIB
    assert value(shown, "profit_bytes") == -5
    assert value(shown, "scanner_cpu_seconds_total") == 6.5
    assert value(shown, "cpu_seconds_per_saved_gib") == 2.5
    assert value(shown, "memory_base_bytes") == 23 * GIB
    assert value(shown, "pressure_ratio", tasks="some", window="10s") == 0.015
    assert value(shown, "pressure_stall_seconds_total", tasks="full") == 12.5


def test_what_the_host_does_not_say_has_no_series() -> None:
    shown = names(scraped(report(BARE)))
    missing = {"ksm_zero_pages", "pressure_ratio", "vmstat_cow_ksm_total", "scanner_cpu_seconds_total", "advisor_mode"}
    missing |= {"cpu_seconds_per_saved_gib", "ksm_pages_scanned_total", "guest_saved_bytes"}
    assert not {PREFIX + name for name in missing} & shown
    assert PREFIX + "saved_bytes" in shown


def test_one_series_for_each_mode() -> None:
    shown = scraped(report(mode=Mode.BOOST, rule="news"))
    assert {mode: value(shown, "mode", mode=mode.value) for mode in Mode} == {mode: mode is Mode.BOOST for mode in Mode}
    assert value(shown, "rule_info", rule="news") == 1
    assert value(scraped(report(rule="news"), report(rule="yield")), "rule_info", rule="news") is None


def test_one_series_for_each_need() -> None:
    wary = report()
    shown = scraped(replace(wary, trend=replace(wary.trend, need=Need.WARY, gap_seconds=120.0)))
    assert {need: value(shown, "need", need=need.word) for need in Need} == {need: need is Need.WARY for need in Need}
    assert value(shown, "pass_gap_seconds") == 120


def test_what_the_policy_expects() -> None:
    seen = report()
    supply, forecast = Supply("machine.slice", 8 * GIB, 3 * GIB), Forecast(short_in_seconds=600.0)
    plenty = Plenty(supply=supply, forecast=forecast, comfort_bytes=GIB, lead_seconds=90.0, is_plenty=True, spares=True)
    shown = scraped(replace(seen, trend=replace(seen.trend, plenty=plenty)))
    assert value(shown, "memory_plenty") == value(shown, "left_alone") == 1
    assert (value(shown, "tightest_available_bytes"), value(shown, "comfort_bytes")) == (3 * GIB, GIB)
    assert (value(shown, "short_in_seconds"), value(shown, "lead_seconds")) == (600, 90)
    assert value(scraped(seen), "short_in_seconds") == math.inf
    assert value(scraped(seen), "left_alone") == 0


def test_a_storm_of_writes_shows_until_it_is_over() -> None:
    seen = report()
    storm = CopyOnWrite(storm_until_seconds=seen.snapshot.clock.monotonic_seconds + 1)
    assert value(scraped(seen), "cow_storm") == 0
    assert value(scraped(replace(seen, trend=replace(seen.trend, copy_on_write=storm))), "cow_storm") == 1


def test_ticks_that_begin_late_are_counted() -> None:
    """Each is due 10 s after the one before; one that took long has as much time to rest before the next."""
    in_time = scraped(report(), report(after_seconds=10.9), report(after_seconds=15.0))
    assert (value(in_time, "ticks_late_total"), value(in_time, "last_tick_late_seconds")) == (0, 0)
    late = scraped(report(), report(after_seconds=12.0), report(after_seconds=25.5))
    assert (value(late, "ticks_late_total"), value(late, "last_tick_late_seconds")) == (2, 3.5)
    assert value(scraped(report(tick_seconds=8.0), report(after_seconds=16.0)), "ticks_late_total") == 0


def test_which_configuration_is_in_force_and_what_was_not_put_back() -> None:
    labels = {"hash": "0123456789ab", "policy": "adaptive", "profile": "quiet"}
    shown = scraped(report())
    assert value(shown, "config_info", **labels, mode="manage") == 1
    assert value(shown, "knobs_not_restored") == 2
    assert value(scraped(replace(report(), dry=True)), "config_info", **labels, mode="observe") == 1


def test_the_scanners_share_of_a_core_fades() -> None:
    ticks = [report(after_seconds=seconds, scanner_cpu_seconds=6.5 + min(seconds, 10) / 2) for seconds in (0, 10, 70)]
    assert value(scraped(*ticks[:1]), "scanner_cpu_ratio") is None
    assert value(scraped(*ticks[:2]), "scanner_cpu_ratio") == 0.5
    assert value(scraped(*ticks), "scanner_cpu_ratio") == pytest.approx(0.5 / math.e)


def test_writes_errors_and_foreign_writes_are_counted() -> None:
    refused = result(status=WriteStatus.REFUSED)
    tick = report(FULL, result(), refused, foreign=(FOREIGN,), problems=("no pressure",))
    shown = scraped(tick, tick)
    assert value(shown, "writes_total", knob="pages_to_scan", status="ok") == 2
    assert value(shown, "writes_total", knob="pages_to_scan", status="refused") == 2
    assert value(shown, "foreign_writes_total", knob="run") == 2
    assert value(shown, "foreign_writes_total", knob="pages_to_scan") == 0
    assert value(shown, "errors_total", where="sensor") == 2
    assert value(shown, "errors_total", where="tick") == 0


def test_tick_durations() -> None:
    shown = scraped(report(tick_seconds=0.004), report(tick_seconds=0.3), report(tick_seconds=60.0))
    assert value(shown, "last_tick_duration_seconds") == 60
    assert value(shown, "tick_duration_seconds_count") == 3
    assert value(shown, "tick_duration_seconds_sum") == pytest.approx(60.304)
    buckets = {bound: value(shown, "tick_duration_seconds_bucket", le=bound) for bound in ("0.002", "0.005", "0.5")}
    assert buckets == {"0.002": 0, "0.005": 1, "0.5": 2}


def test_unmerging_resets_full_scans_but_not_the_counter() -> None:
    def passes(count: int) -> Report:
        return report(counters=replace(FULL.counters, full_scans=count))

    assert value(scraped(passes(7), passes(9), passes(0), passes(2)), "ksm_full_scans_total") == 11


def test_a_counter_that_could_not_be_read_stays_where_it_was() -> None:
    shown = scraped(report(), report(pressure=None, scanner_cpu_seconds=None), report(scanner_cpu_seconds=8.0))
    assert value(shown, "scanner_cpu_seconds_total") == 8.0
    assert value(shown, "pressure_stall_seconds_total", tasks="some") == 12.5


@given(st.lists(st.integers(min_value=0, max_value=2**63)))
def test_a_climbing_counter_never_goes_backwards(readings: list[int]) -> None:
    counter = Climbing(first=0, last=0, total=0)
    for reading in readings:
        later = counter.after(reading)
        assert later.total >= counter.total
        counter = later


def test_guests_come_and_go() -> None:
    one, two = guest(1, ksm=GuestKsm(rmap_items=9, merging_pages=5, zero_pages=1, profit_bytes=-7)), guest(2)
    shown = scraped(report(guests=(one, two)))
    labels = {"guest": "vm-1", "uuid": "", "pid": "1"}
    assert value(shown, "guests") == 2
    assert value(shown, "guest_saved_bytes", **labels) == 6 * 4096
    assert value(shown, "guest_profit_bytes", **labels) == -7
    assert value(shown, "guest_rmap_items", **labels) == 9
    assert value(shown, "guest_saved_bytes", **(labels | {"guest": "vm-2", "pid": "2"})) is None
    assert value(shown, "guest_resident_bytes", **(labels | {"guest": "vm-2", "pid": "2"})) == GIB
    assert value(scraped(report(guests=(one, two)), report(guests=(two,))), "guest_saved_bytes", **labels) is None


def test_guests_that_the_scan_backend_leaves_alone_are_counted() -> None:
    assert value(scraped(report(guests=(guest(1), guest(2)))), "guests_refused") == 0
    refused = replace(guest(1), refused="its memory is locked")
    assert value(scraped(report(guests=(refused, guest(2)))), "guests_refused") == 1


def test_two_guests_of_one_name_have_two_series() -> None:
    twins = (replace(guest(1), name="twin"), replace(guest(2), name="twin"))
    keys = [key for key in scraped(report(guests=twins)) if ("guest", "twin") in key[1]]
    assert len([name for name, _ in keys if name == "ksmtuned_guest_resident_bytes"]) == 2


def test_too_many_guests_are_summed() -> None:
    guests = tuple(guest(number, ksm=GuestKsm(merging_pages=1)) for number in range(1000, 0, -1))
    shown = scraped(report(guests=guests), max_guest_series=100)
    saved = {
        dict(labels)["guest"]: number for (name, labels), number in shown.items() if name.endswith("guest_saved_bytes")
    }
    assert saved.pop("other") == 900 * 4096
    assert set(saved) == {f"vm-{number}" for number in range(1, 101)}  # the oldest guests
    assert value(shown, "guests") == 1000


def test_a_guest_may_have_any_name() -> None:
    nasty = 'a"b\\c\nd é {}'
    shown = scraped(report(guests=(replace(guest(1), name=nasty),)))
    assert value(shown, "guest_resident_bytes", guest=nasty, uuid="", pid="1") == GIB


def snapshots() -> st.SearchStrategy[Snapshot]:
    """Snapshots with any numbers, of which any may be missing."""
    pages = st.integers(min_value=0, max_value=2**52)
    maybe = st.none() | pages
    counters = st.builds(
        Counters,
        pages_sharing=pages,
        full_scans=pages,
        pages_scanned=maybe,
        ksm_zero_pages=st.none() | st.integers(min_value=-9, max_value=2**52),
        general_profit=st.none() | st.integers(min_value=-(2**62), max_value=2**62),
    )
    return st.builds(
        replace,
        st.sampled_from([FULL, BARE]),
        counters=counters,
        vmstat=st.builds(Vmstat, cow_ksm=maybe, oom_kill=maybe),
        memory=st.builds(Memory, total_bytes=pages, available_bytes=pages, hugetlb_bytes=pages),
        scanner_cpu_seconds=st.none() | st.floats(min_value=0, max_value=1e9),
    )


@given(st.lists(snapshots(), min_size=1, max_size=4))
def test_any_host_can_be_scraped_and_no_counter_falls(hosts: list[Snapshot]) -> None:
    metrics, totals, before = Metrics(), Totals(), Series()
    for host in hosts:
        tick = report(host)
        totals = totals.after(tick)
        metrics.publish(tick, totals)
        now = parsed(metrics)
        falling = [
            key for key, number in before.items() if key[0].endswith("_total") and key in now and now[key] < number
        ]
        assert [key for key in falling if key[0].startswith(PREFIX)] == []
        before = now


def test_openmetrics_parses() -> None:
    metrics, tick = Metrics(), report(FULL, result(), foreign=(FOREIGN,))
    metrics.publish(tick, Totals().after(tick))
    text = openmetrics_exposition.generate_latest(metrics.registry).decode()  # type: ignore[no-untyped-call] # it has no types
    families = openmetrics_parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call] # nor this
    assert {"ksmtuned_saved_bytes", "ksmtuned_ksm_full_scans"} <= {family.name for family in families}


def test_some_metrics_can_be_asked_for_by_name() -> None:
    metrics, tick = Metrics(), report()
    metrics.publish(tick, Totals().after(tick))
    found = metrics.registry.restricted_registry(["ksmtuned_saved_bytes"]).collect()
    assert [sample.name for family in found for sample in family.samples] == ["ksmtuned_saved_bytes"]


def test_scrapes_while_ticks_publish_see_one_report_each() -> None:
    metrics, done = Metrics(), threading.Event()
    ticks = [report(counters=Counters(pages_sharing=count), scanner_cpu_seconds=float(count)) for count in range(200)]

    def publish() -> None:
        for tick in ticks:
            metrics.publish(tick, Totals().after(tick))
        done.set()

    thread = threading.Thread(target=publish)
    thread.start()
    torn, looks = [], 0
    while not done.is_set() or not looks:
        now, looks = parsed(metrics), looks + 1
        saved, cpu_seconds = value(now, "ksm_pages_sharing"), value(now, "scanner_cpu_seconds_total")
        torn += [] if saved == cpu_seconds else [(saved, cpu_seconds)]
    thread.join()
    assert torn == []


@pytest.mark.parametrize("host", [FULL, BARE], ids=["full", "bare"])
def test_promtool_finds_nothing(host: Snapshot) -> None:
    metrics, tick = Metrics(), report(host, result(), foreign=(FOREIGN,))
    metrics.publish(tick, Totals().after(tick), STANDING)
    lint = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=metrics.exposition(), capture_output=True, check=False, timeout=30
    )
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, b"")
