"""Makes Prometheus metrics from the last report when somebody scrapes."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ksmtuned_py.publish.catalogue import rows
from ksmtuned_py.publish.rows import Row, Standing, Told
from ksmtuned_py.publish.totals import TICK_BOUNDS_SECONDS, Totals
from ksmtuned_py.report import Report

PREFIX = "ksmtuned_"
FAMILIES: dict[str, type[GaugeMetricFamily | CounterMetricFamily]] = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
}

NOTHING_STANDS = Standing()


class Metrics(Collector):
    """The metrics of one daemon. One thread ticks and publishes, any other may scrape, and they share one attribute."""

    def __init__(self, max_guest_series: int = 100) -> None:
        self.rows = rows(max_guest_series)
        self.told: Told | None = None
        """What is shown; None before the first report."""
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)  # this process's own memory, CPU and open files: process_*

    def publish(self, report: Report, totals: Totals, standing: Standing = NOTHING_STANDS) -> None:
        """Show this report to all scrapes from now on."""
        self.told = Told(report, totals, standing)

    def exposition(self) -> bytes:
        """The metrics as Prometheus text."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """The families that have a value; none before the first report."""
        told = self.told
        if told is not None:
            yield _tick_durations(told.totals)
            yield from (family for row in self.rows if (family := _family(row, told)).samples)

    def describe(self) -> Iterator[Metric]:
        """All families without values. The registry checks their names, and scrapes may ask for some by name."""
        yield _tick_durations(None)
        yield from (_family(row, None) for row in self.rows)


def _family(row: Row, told: Told | None) -> Metric:
    family = FAMILIES[row.kind](PREFIX + row.name, row.help, labels=row.labels)
    for label_values, value in row.samples(told) if told else ():
        if value is not None:
            family.add_metric(label_values, value)
    return family


def _tick_durations(totals: Totals | None) -> Metric:
    family = HistogramMetricFamily(PREFIX + "tick_duration_seconds", "How long the ticks took")
    if totals:
        bounds = [str(bound) for bound in TICK_BOUNDS_SECONDS]
        buckets = [*zip(bounds, totals.ticks_within, strict=True), ("+Inf", totals.ticks)]
        family.add_metric([], buckets, totals.tick_seconds)
    return family
