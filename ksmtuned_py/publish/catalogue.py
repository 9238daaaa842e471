"""The catalogue of metrics, as data."""

import platform
from collections.abc import Iterator
from typing import get_args

from ksmtuned_py import __version__
from ksmtuned_py.model import Stall
from ksmtuned_py.model.room import could_find_bytes
from ksmtuned_py.publish.capacityrows import CAPACITY_ROWS
from ksmtuned_py.publish.climbing import STALLS, KernelCounter
from ksmtuned_py.publish.guestrows import guest_rows
from ksmtuned_py.publish.policyrows import DECISION_ROWS, PLENTY_ROWS, TREND_ROWS
from ksmtuned_py.publish.rows import Row, Sample, Told, counter, gauge
from ksmtuned_py.publish.totals import Where


def _knobs(told: Told) -> Iterator[Sample]:
    for name, value in told.snapshot.knobs.items():
        if isinstance(value, int):
            yield (name,), value


def _advisor_mode(told: Told) -> Iterator[Sample]:
    now = told.snapshot.knobs.advisor_mode
    for mode in ("none", "scan-time"):
        yield (mode,), None if now is None else now == mode


def _stall_ratios(told: Told) -> Iterator[Sample]:
    for tasks, stall in _stalls(told):
        yield (tasks, "10s"), stall.avg10_percent / 100
        yield (tasks, "60s"), stall.avg60_percent / 100
        yield (tasks, "300s"), stall.avg300_percent / 100


def _stalls(told: Told) -> list[tuple[str, Stall]]:
    pressure = told.snapshot.pressure
    return [("some", pressure.some), ("full", pressure.full)] if pressure else []


def _stall_seconds(told: Told) -> Iterator[Sample]:
    for tasks, each in STALLS.items():
        yield (tasks,), told.totals.total(each)


def _cpu_pressure_ratio(told: Told) -> float | None:
    pressure = told.snapshot.cpu_pressure
    return pressure.some.avg10_percent / 100 if pressure else None


def _writes(told: Told) -> Iterator[Sample]:
    for knob, counts in told.totals.writes.items():
        for status, count in counts.items():
            yield (knob, status.value), count


def _foreign_writes(told: Told) -> Iterator[Sample]:
    for knob in dict(told.snapshot.knobs.items()):
        yield (knob,), told.totals.foreign_writes.get(knob, 0)  # from 0 on, else rate() cannot see the first one


def _errors(told: Told) -> Iterator[Sample]:
    for where in get_args(Where):
        yield (where,), told.totals.errors.get(where, 0)


def _config_info(told: Told) -> Iterator[Sample]:
    standing, mode = told.standing, "observe" if told.report.dry else "manage"
    yield (standing.config_hash, standing.policy, standing.profile, mode), 1


def _libvirt_age_seconds(told: Told) -> float | None:
    ages = (guest.libvirt_age_seconds for guest in told.snapshot.guests if guest.libvirt_age_seconds is not None)
    return max(ages, default=None)


KSM_ROWS = (
    gauge("ksm_pages_shared", "KSM frames in use", lambda told: told.snapshot.counters.pages_shared),
    gauge("ksm_pages_sharing", "Further mappings of KSM frames", lambda told: told.snapshot.counters.pages_sharing),
    gauge(
        "ksm_pages_unshared",
        "Pages that found no equal yet; dropped to 0 at each full scan",
        lambda told: told.snapshot.counters.pages_unshared,
    ),
    gauge(
        "ksm_pages_volatile",
        "Tracked pages that are in no tree: changing, or skipped by smart_scan",
        lambda told: told.snapshot.counters.pages_volatile,
    ),
    gauge(
        "ksm_zero_pages",
        "Pages merged with the kernel's zero page",
        lambda told: told.snapshot.counters.ksm_zero_pages,
    ),
    gauge(
        "ksm_stable_node_chains",
        "Contents with more sharers than max_page_sharing",
        lambda told: told.snapshot.counters.stable_node_chains,
    ),
    gauge(
        "ksm_stable_node_dups",
        "Frames that hold such contents",
        lambda told: told.snapshot.counters.stable_node_dups,
    ),
    Row(
        "knob", "Settings under /sys/kernel/mm/ksm, how ksmd is scheduled, and khugepaged's", "gauge", ("knob",), _knobs
    ),
    Row("advisor_mode", "1 for the kernel advisor's mode", "gauge", ("mode",), _advisor_mode),
)

BALANCE_ROWS = (
    gauge("saved_bytes", "Memory that merging saves", lambda told: told.snapshot.saved_bytes),
    gauge(
        "debt_bytes",
        "Memory the host must find if every merged page is written to or unmerged",
        lambda told: told.snapshot.saved_bytes,
    ),
    gauge(
        "debt_room_bytes",
        "What the host could find for it: available memory and free swap, less a reserve",
        lambda told: could_find_bytes(told.snapshot.memory),
    ),
    gauge(
        "debt_exceeded",
        "1 when the debt is more than the host could find",
        lambda told: told.snapshot.saved_bytes > could_find_bytes(told.snapshot.memory),
    ),
    gauge(
        "profit_bytes",
        "Memory that merging saves less the kernel's bookkeeping; negative is a loss",
        lambda told: told.snapshot.profit_bytes,
    ),
    gauge(
        "scanner_cpu_ratio",
        "CPU the scanner used lately, as a share of one core",
        lambda told: told.totals.scanner_share,
    ),
    gauge(
        "cpu_seconds_per_saved_gib",
        "All CPU time of the scanner over the GiB saved now",
        lambda told: told.totals.cpu_seconds_per_saved_gib(told.snapshot),
    ),
)

HOST_ROWS = (
    gauge("memory_total_bytes", "The host's memory", lambda told: told.snapshot.memory.total_bytes),
    gauge("memory_available_bytes", "MemAvailable", lambda told: told.snapshot.memory.available_bytes),
    gauge("memory_base_bytes", "Memory less the hugetlb pools", lambda told: told.snapshot.memory.base_bytes),
    gauge("memory_hugetlb_bytes", "The hugetlb pools", lambda told: told.snapshot.memory.hugetlb_bytes),
    gauge(
        "memory_arc_reclaimable_bytes",
        "ZFS cache above its minimum",
        lambda told: told.snapshot.memory.arc_reclaimable_bytes,
    ),
    gauge("swap_size_bytes", "Swap space", lambda told: told.snapshot.memory.swap_total_bytes),
    gauge("swap_free_bytes", "Free swap space", lambda told: told.snapshot.memory.swap_free_bytes),
    Row(
        "pressure_ratio",
        "Share of the window in which some, or all, tasks waited for memory",
        "gauge",
        ("tasks", "window"),
        _stall_ratios,
    ),
    gauge("cpu_pressure_ratio", "Share of the last 10 s in which some tasks waited for a CPU", _cpu_pressure_ratio),
    Row(
        "pressure_stall_seconds",
        "Time in which some, or all, tasks waited for memory",
        "counter",
        ("tasks",),
        _stall_seconds,
    ),
    gauge("memory_anon_huge_bytes", "Private memory in huge pages", lambda told: told.snapshot.memory.anon_huge_bytes),
)

OWN_ROWS = (
    gauge("libvirt_age_seconds", "How old is what libvirt said of the guests", _libvirt_age_seconds),
    gauge(
        "pause_left_seconds",
        "Time until a pause that somebody asked for ends; 0 when there is none",
        lambda told: told.snapshot.pause_left_seconds,
    ),
    gauge("next_tick_seconds", "Time to the next tick", lambda told: told.report.decision.next_tick_seconds),
    gauge(
        "last_tick_timestamp_seconds",
        "When the last tick looked at the host",
        lambda told: told.snapshot.clock.unix_seconds,
    ),
    counter(
        "ticks_late", "Ticks that began more than a second after they were due", lambda told: told.totals.ticks_late
    ),
    gauge(
        "last_tick_late_seconds",
        "How long after it was due the last tick began",
        lambda told: told.totals.last_late_seconds,
    ),
    gauge("last_tick_duration_seconds", "How long the last tick took", lambda told: told.report.tick_seconds),
    Row("errors", "Failed ticks, failed sensors, failed publishing", "counter", ("where",), _errors),
    Row("writes", "Knob writes by how they ended", "counter", ("knob", "status"), _writes),
    Row(
        "foreign_writes",
        "Knobs changed by somebody else",
        "counter",
        ("knob",),
        _foreign_writes,
    ),
    gauge(
        "knobs_not_restored",
        "Knobs that a daemon before this one has changed, and that could not be put back",
        lambda told: told.standing.knobs_not_restored,
    ),
    Row(
        "config_info",
        "The configuration in force, by a hash that equal ones share, but for [metrics]",
        "gauge",
        ("hash", "policy", "profile", "mode"),
        _config_info,
    ),
    Row(
        "build_info",
        "The running daemon",
        "gauge",
        ("version", "python", "backend"),
        lambda told: [((__version__, platform.python_version(), told.snapshot.backend), 1)],
    ),
)


def _climbing(each: KernelCounter) -> Row:
    return counter(each.metric, each.value.help, lambda told: told.totals.total(each))


KERNEL_ROWS = tuple(_climbing(each) for each in KernelCounter if each not in STALLS.values())


def rows(max_guest_series: int) -> tuple[Row, ...]:
    """The whole catalogue."""
    of_host = (*KERNEL_ROWS, *KSM_ROWS, *BALANCE_ROWS, *CAPACITY_ROWS, *HOST_ROWS)
    return (*of_host, *DECISION_ROWS, *PLENTY_ROWS, *TREND_ROWS, *OWN_ROWS, *guest_rows(max_guest_series))
