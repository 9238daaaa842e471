"""Reports made by hand, for everything that is told of a tick."""

from dataclasses import replace
from typing import Any

from ksmtuned_py.config import Config
from ksmtuned_py.model import (
    Clock,
    Counters,
    Decision,
    ForeignWrite,
    Guest,
    GuestKsm,
    KnobName,
    Knobs,
    KnobValue,
    Memory,
    Mode,
    Outcome,
    Pressure,
    Run,
    Snapshot,
    Stall,
    Verdict,
    Vmstat,
    Write,
    WriteResult,
    WriteStatus,
)
from ksmtuned_py.policy.capacity import Outlook
from ksmtuned_py.policy.hugepages import HugeCost
from ksmtuned_py.policy.scanner import Pass, Passes
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.report import Report
from ksmtuned_py.units import GIB

STALL = Stall(avg10_percent=1.5, avg60_percent=1.0, avg300_percent=0.5, total_seconds=12.5)

FULL = Snapshot(
    clock=Clock(monotonic_seconds=1000.0, unix_seconds=1_700_000_000.0),
    backend="kernel",
    page_bytes=4096,
    cpus=2,
    knobs=Knobs(
        run=Run.MERGE,
        pages_to_scan=500,
        sleep_millisecs=20,
        smart_scan=1,
        use_zero_pages=0,
        merge_across_nodes=1,
        max_page_sharing=256,
        stable_node_chains_prune_millisecs=2000,
        advisor_mode="none",
        advisor_max_cpu=70,
        advisor_min_pages_to_scan=500,
        advisor_max_pages_to_scan=30000,
        advisor_target_scan_time=200,
    ),
    counters=Counters(
        pages_shared=1000,
        pages_sharing=262_134,
        pages_unshared=30,
        pages_volatile=40,
        full_scans=7,
        pages_scanned=1_000_000,
        pages_skipped=50,
        ksm_zero_pages=10,
        general_profit=-5,
        stable_node_chains=2,
        stable_node_dups=3,
    ),
    memory=Memory(
        total_bytes=24 * GIB,
        available_bytes=9 * GIB,
        hugetlb_bytes=GIB,
        swap_total_bytes=2 * GIB,
        swap_free_bytes=GIB,
        arc_reclaimable_bytes=GIB,
        anon_huge_bytes=4 * GIB,
    ),
    pressure=Pressure(some=STALL, full=STALL),
    cpu_pressure=Pressure(some=STALL, full=STALL),
    idle_seconds=8100.5,
    vmstat=Vmstat(
        cow_ksm=44,
        ksm_swpin_copy=1,
        swpin_zero=2,
        swpout_zero=3,
        pswpin=4,
        pswpout=5,
        oom_kill=6,
        thp_collapse_alloc=7,
        thp_split_page=8,
    ),
    scanner_cpu_seconds=6.5,
    guests=(
        Guest(
            pid=101,
            start_ticks=9,
            name="web",
            kind="qemu",
            uuid="u-1",
            rss_bytes=GIB,
            huge_bytes=GIB // 2,
            ksm=GuestKsm(rmap_items=9, merging_pages=5, zero_pages=1, profit_bytes=-2, mergeable=True),
            room_bytes=4096,
            libvirt_age_seconds=2.5,
        ),
    ),
)
"""A host that says everything; 1 GiB is saved."""

BARE = Snapshot(
    clock=FULL.clock,
    backend="kernel",
    page_bytes=4096,
    cpus=1,
    knobs=Knobs(run=Run.STOP, pages_to_scan=100, sleep_millisecs=20),
    counters=Counters(),
    memory=Memory(total_bytes=GIB, available_bytes=GIB // 2),
)
"""An old kernel without pressure, without guests."""

DECISION = Decision(
    mode=Mode.CRUISE,
    rule="yield",
    reason="a saved GiB costs 2.1 CPU-s, below the price of 10",
    knobs=Knobs(run=Run.MERGE, pages_to_scan=500),
    next_tick_seconds=10.0,
    verdicts=(
        Verdict(rule="news", fired=False, sentence="no news"),
        Verdict(rule="yield", fired=True, sentence="pays"),
    ),
    would_change=("a new guest: boost",),
)


OUTLOOK = Outlook(
    guests=12,
    risk=0.01,
    chance_now=0.004,
    chance=0.01,
    chance_one_more=0.02,
    like="guest-100",
    own_bytes=GIB,
    landing_bytes=GIB,
    lands=True,
    cgroup="",
    room_bytes=GIB,
    debt_bytes=GIB,
    record_seconds=100_000,
    rises=40,
    part_seconds=3600,
)
"""Twelve more guests fit."""

HUGE_COST = HugeCost(split=512, began_bytes=0, gained_bytes=GIB)
PASSES = Passes(done=7, last=Pass(passes=1, seconds=60.0, cpu_seconds=1.5, gained_bytes=GIB))


def report(
    snapshot: Snapshot = FULL,
    *results: WriteResult,
    mode: Mode = Mode.CRUISE,
    rule: str = "yield",
    reason: str = DECISION.reason,
    after_seconds: float = 0.0,
    tick_seconds: float = 0.004,
    **fields: Any,
) -> Report:
    """Returns one tick, so long after the snapshot's own time, with other values for the snapshot's fields."""
    clock = replace(snapshot.clock, monotonic_seconds=snapshot.clock.monotonic_seconds + after_seconds)
    return Report(
        snapshot=replace(snapshot, **{"clock": clock, **fields}),
        trend=replace(Trend.begin(Config()), passes=PASSES, huge_cost=HUGE_COST),
        decision=replace(DECISION, mode=mode, rule=rule, reason=reason),
        outcome=Outcome(results=results),
        dry=False,
        tick_seconds=tick_seconds,
    )


def result(
    knob: KnobName = "pages_to_scan",
    old: KnobValue = 100,
    new: KnobValue = 500,
    status: WriteStatus = WriteStatus.OK,
    detail: str = "",
) -> WriteResult:
    """Returns one write."""
    return WriteResult(write=Write(knob=knob, old=old, new=new), status=status, detail=detail)


FOREIGN = ForeignWrite(knob="run", ours=1, seen=0)
