"""The metrics of what the policy thinks, as data: its decision, what it expects, and what it has learned."""

from collections.abc import Callable

from ksmtuned_py.model import Mode
from ksmtuned_py.policy.need import Need
from ksmtuned_py.policy.scanner import Pass
from ksmtuned_py.publish.rows import Row, Told, counter, gauge

DECISION_ROWS = (
    Row(
        "mode",
        "1 for what the daemon is doing with KSM",
        "gauge",
        ("mode",),
        lambda told: [((mode.value,), told.report.decision.mode is mode) for mode in Mode],
    ),
    Row(
        "rule_info",
        "The rule that won the last decision",
        "gauge",
        ("rule",),
        lambda told: [((told.report.decision.rule,), 1)],
    ),
)


def _of_last_pass(read: Callable[[Pass], float | None]) -> Callable[[Told], float | None]:
    def value(told: Told) -> float | None:
        last = told.report.trend.passes.last
        return read(last) if last else None

    return value


def _storm(told: Told) -> bool:
    return told.snapshot.clock.monotonic_seconds < told.report.trend.copy_on_write.storm_until_seconds


PLENTY_ROWS = (
    gauge(
        "memory_plenty",
        "1 while nobody needs what merging would save",
        lambda told: told.report.trend.plenty.is_plenty,
    ),
    gauge(
        "left_alone",
        "1 while guests keep their huge pages, because memory is plenty",
        lambda told: told.report.trend.plenty.left_alone,
    ),
    gauge(
        "comfort_bytes",
        "Available memory below which merging begins",
        lambda told: told.report.trend.plenty.comfort_bytes,
    ),
    gauge(
        "tightest_available_bytes",
        "Available memory where it is tightest, which comfort is about: of the host, or of a slice of guests",
        lambda told: told.report.trend.plenty.supply.available_bytes,
    ),
    gauge(
        "short_in_seconds",
        "Time until memory is short if it falls on as lately; +Inf when no shortage is in sight",
        lambda told: told.report.trend.plenty.forecast.short_in_seconds,
    ),
    gauge("lead_seconds", "Time that merging would take", lambda told: told.report.trend.plenty.lead_seconds),
)

TREND_ROWS = (
    Row(
        "need",
        "1 for how badly the host wants memory",
        "gauge",
        ("need",),
        lambda told: [((need.word,), told.report.trend.need is need) for need in Need],
    ),
    gauge("pass_gap_seconds", "Aimed at between two passes outside boosts", lambda told: told.report.trend.gap_seconds),
    gauge(
        "page_cost_seconds", "The scanner's CPU time for a page", lambda told: told.report.trend.scanner.cost_seconds
    ),
    gauge(
        "oversleep_seconds",
        "How much longer than sleep_millisecs the scanner sleeps",
        lambda told: told.report.trend.scanner.oversleep_seconds,
    ),
    counter(
        "huge_pages_split",
        "Huge pages split while ksmd ran, since the daemon began",
        lambda told: told.report.trend.huge_cost.split,
    ),
    counter(
        "huge_pages_collapsed",
        "Huge pages that khugepaged made while ksmd ran, which ksmd may split again",
        lambda told: told.report.trend.huge_cost.collapsed,
    ),
    gauge(
        "huge_pages_split_per_saved_gib",
        "Huge pages split for each GiB gained since the daemon began",
        lambda told: told.report.trend.huge_cost.split_per_gib,
    ),
    counter("huge_pages_given_back", "Huge pages given back to guests", lambda told: told.totals.huge_back.given),
    counter(
        "huge_pages_paid_bytes",
        "Merged memory that was given up for them",
        lambda told: told.totals.huge_back.paid_bytes,
    ),
    counter("huge_pages_cpu_seconds", "CPU time for it", lambda told: told.totals.huge_back.cpu_seconds),
    gauge("last_pass_duration_seconds", "How long the last pass took", _of_last_pass(lambda last: last.seconds)),
    gauge("last_pass_cpu_seconds", "What the last pass cost", _of_last_pass(lambda last: last.cpu_seconds)),
    gauge("last_pass_gained_bytes", "What the last pass saved, net", _of_last_pass(lambda last: last.gained_bytes)),
    gauge(
        "cow_ksm_pages_per_minute",
        "Writes to merged pages lately",
        lambda told: told.report.trend.copy_on_write.pages_per_minute,
    ),
    gauge("cow_storm", "1 while so many merged pages are written to that nothing is boosted", _storm),
)
