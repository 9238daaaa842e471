"""Snapshots for tests of pure code: a host of 16 GiB with one guest, but for what a test says."""

from dataclasses import replace
from typing import Any

from ksmtuned_py.model import Clock, Counters, Guest, Knobs, Memory, Pressure, Run, Snapshot, Stall, Vmstat
from ksmtuned_py.units import GIB

CALM_STALL = Stall(avg10_percent=0, avg60_percent=0, avg300_percent=0, total_seconds=0)


def snapshot(
    *,
    at: float = 1000.0,
    available_bytes: int = 10 * GIB,
    total_bytes: int = 16 * GIB,
    some_percent: float = 0,
    full_percent: float = 0,
    guests: tuple[Guest, ...] | None = None,
    counters: Counters = Counters(),  # noqa: B008 - frozen
    knobs: Knobs | None = None,
    cpu_seconds: float | None = 0.0,
    cow_ksm: int | None = 0,
    local_minute_of_day: int = 0,
    **fields: Any,
) -> Snapshot:
    """Returns one look at the host; `at` is monotonic seconds."""
    seen = Snapshot(
        clock=Clock(monotonic_seconds=at, unix_seconds=at, local_minute_of_day=local_minute_of_day),
        backend="model",
        page_bytes=4096,
        cpus=2,
        knobs=knobs or Knobs(run=Run.MERGE, pages_to_scan=100, sleep_millisecs=20, smart_scan=1, advisor_mode="none"),
        counters=counters,
        memory=Memory(total_bytes=total_bytes, available_bytes=available_bytes),
        pressure=Pressure(
            some=replace(CALM_STALL, avg10_percent=some_percent),
            full=replace(CALM_STALL, avg10_percent=full_percent),
        ),
        vmstat=Vmstat(cow_ksm=cow_ksm),
        scanner_cpu_seconds=cpu_seconds,
        guests=(guest(),) if guests is None else guests,
    )
    return replace(seen, **fields)


def guest(name: str = "web", pid: int = 100, rss_bytes: int = GIB) -> Guest:
    """Returns a virtual machine."""
    return Guest(pid=pid, start_ticks=pid, name=name, kind="qemu", rss_bytes=rss_bytes)
