"""Checks what in the kernel's KSM keeps memory from merging. Pure."""

from collections.abc import Callable, Iterator

from ksmtuned_py.doctor.finding import Facts, Finding
from ksmtuned_py.doctor.mends import enrol, newer_kernel
from ksmtuned_py.model import KnobName, Run, Snapshot
from ksmtuned_py.units import human_bytes

CONFIG = "/etc/ksmtuned-py/config.toml"
PAGES_TO_JUDGE = 2000
SLOW_SECONDS = 10e-6
"""The time for a page above which ksmd is slow.

Measured are 0.3 us for a merged page, 0.9 us for an unmerged one, and 4 us where memory is cold.
"""
SETTLED_PASSES = 3
"""The passes after which pages should have merged. A page merges at its second pass at the earliest."""


def ksm_absent(facts: Facts) -> Iterator[Finding]:
    """Find that the kernel was built without CONFIG_KSM, has another merger in its place, or hides its files."""
    if facts.system.uksm:
        yield Finding(
            code="uksm",
            severity="note" if facts.scanning else "finding",
            sentence="UKSM merges on this kernel, by itself and all memory alike: there is no KSM to be steered",
            evidence=f"{facts.system.uksm} exists" + ("" if facts.snapshot else f", {facts.ksm_path} does not"),
            mend=f"steer it by its own {facts.system.uksm}/cpu_governor, or boot a kernel with CONFIG_KSM=y",
        )
    if facts.hidden_ksm is not None:
        yield Finding(
            code="ksm_absent",
            sentence="whether this kernel has KSM cannot be told from here",
            evidence=str(facts.hidden_ksm),
            mend=facts.hidden_ksm.hint,
        )
    elif facts.snapshot is None:
        yield Finding(
            code="ksm_absent",
            severity="note" if facts.scanning else "finding",
            sentence="this kernel has no KSM",
            evidence=f"{facts.ksm_path} does not exist",
            mend='boot a kernel with CONFIG_KSM=y, or use daemon.backend = "scan"',
        )


def ksm_off(facts: Facts, now: Snapshot) -> Iterator[Finding]:
    """Find that nothing scans. A running daemon has its reasons, and the usual one is plenty of memory."""
    if now.knobs.run != Run.MERGE and now.guests:
        yield Finding(
            code="ksm_off",
            severity="note" if facts.daemon else "finding",
            sentence="ksmd does not scan",
            evidence=f"{facts.ksm_path}/run is {now.knobs.run}" + (f"; {facts.daemon}" if facts.daemon else ""),
            mend="ksmtuned-py why says what it waits for" if facts.daemon else "start the daemon: ksmtuned-py run",
        )


def nobody(facts: Facts, now: Snapshot) -> Iterator[Finding]:
    """Find that there is no guest. Whether ksmd has pages all the same tells why."""
    if now.guests:
        return
    passes, tracked = now.counters.full_scans, now.counters.candidate_pages
    if tracked:
        yield Finding(
            code="unknown_sharers",
            sentence="pages are tracked, and none of the processes that they belong to was found",
            evidence=f"{human_bytes(tracked * now.page_bytes)} tracked after {passes:,} passes, and no guest",
            mend=f"ask as root; or name the programs in guests.name_patterns in {CONFIG}; "
            "or they have ended, and the next pass clears that away",
        )
        return
    in_vain = now.knobs.run == Run.MERGE and passes >= SETTLED_PASSES
    after = f"after {passes:,} passes nothing is tracked" if passes else "nothing is tracked"
    yield Finding(
        code="nobody",
        severity="finding" if in_vain else "note",
        sentence="no process has asked for merging, and no guest runs",
        evidence=f"{after} (pages_shared, _sharing, _unshared, _volatile are 0), and no process is a known guest",
        mend="start a guest: QEMU asks by itself, cloud-hypervisor with mergeable=on; for others: "
        f"{enrol(facts.system)}; or name your programs in guests.name_patterns in {CONFIG}",
    )


def old_kernel(facts: Facts, now: Snapshot) -> Iterator[Finding]:
    """Note that the kernel lacks features that came with Linux 6.7 and 6.8."""
    features: tuple[KnobName, ...] = ("smart_scan", "advisor_mode")
    missing = [name for name in features if now.knobs.get(name) is None]
    if missing:
        yield Finding(
            code="old_kernel",
            severity="note",
            sentence=f"this kernel has no {' and no '.join(missing)}: every pass scans every page",
            evidence=f"no {', '.join(missing)} in {facts.ksm_path}",
            mend=f"none is needed; merging costs less CPU if you {newer_kernel(facts.system)}",
        )


def max_page_sharing(_: Facts, now: Snapshot) -> Iterator[Finding]:
    """Find that contents are kept more than once, because too many pages share them."""
    copies = now.counters.stable_node_dups or 0
    if copies:
        yield Finding(
            code="max_page_sharing",
            severity="note",
            sentence="some contents have more sharers than one page may have, and are kept more than once",
            evidence=f"stable_node_chains is {now.counters.stable_node_chains}, stable_node_dups {copies}, "
            f"max_page_sharing {now.knobs.max_page_sharing}",
            mend=f"kernel.max_page_sharing in {CONFIG}; more sharers make reverse mapping slower",
        )


def merge_across_nodes(facts: Facts, now: Snapshot) -> Iterator[Finding]:
    """Find that equal pages of two NUMA nodes are kept apart."""
    if now.knobs.merge_across_nodes == 0 and facts.numa_nodes > 1:
        yield Finding(
            code="merge_across_nodes",
            sentence="equal pages on different NUMA nodes are not merged",
            evidence=f"merge_across_nodes is 0 and the host has {facts.numa_nodes} nodes",
            mend=f"kernel.merge_across_nodes = 1 in {CONFIG}, if remote access is acceptable",
        )


def khugepaged(facts: Facts, now: Snapshot) -> Iterator[Finding]:
    """Find that khugepaged undoes merging, and whether ksmd splits again what it makes.

    It collapses ranges with merged pages into huge pages, without a trace in cow_ksm.
    """
    huge, collapsed = facts.huge_pages, now.vmstat.thp_collapse_alloc or 0
    made, split = _since(facts.before, now) if now.knobs.run == Run.MERGE else (0, 0)
    fights = made > 0 and split > 0
    zero = bool((now.knobs.use_zero_pages or fights) and huge.max_ptes_none)
    if huge.enabled == "never" or not collapsed or not now.saved_bytes or not (huge.max_ptes_shared or zero):
        return
    if facts.holds_khugepaged and not fights:
        return
    yield Finding(
        code="khugepaged",
        severity="finding" if fights else "note",
        sentence="khugepaged and ksmd undo each other's work: one makes huge pages that the other splits"
        if fights
        else "khugepaged may undo merging: it makes huge pages of ranges that hold merged pages",
        evidence=f"max_ptes_shared is {huge.max_ptes_shared}, {collapsed} huge pages were made so since boot"
        + (f"; since the daemon looked last {made} were made and {split} split" if fights else "")
        + (f"; use_zero_pages is {now.knobs.use_zero_pages} and max_ptes_none {huge.max_ptes_none}" if zero else ""),
        mend=f'kernel.khugepaged = "need" in {CONFIG}, or '
        "echo 0 > /sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_shared"
        + (" (and max_ptes_none, if shrink_underused is not 1)" if zero else ""),
    )


def _since(before: Snapshot | None, now: Snapshot) -> tuple[int, int]:
    """The huge pages that were made of small ones, and that were split, since the daemon looked last."""
    then = (before or now).vmstat
    made = (now.vmstat.thp_collapse_alloc or 0) - (then.thp_collapse_alloc or 0)
    return made, (now.vmstat.thp_split_page or 0) - (then.thp_split_page or 0)


def slow_ksmd(facts: Facts, now: Snapshot) -> Iterator[Finding]:
    """Find that ksmd takes long for a page.

    Since Linux 6.12 a split searches the whole huge page for zeros, which no counter of KSM shows.
    """
    before = facts.before
    cpu = (now.scanner_cpu_seconds or 0) - ((before.scanner_cpu_seconds or 0) if before else 0)
    pages = (now.counters.pages_scanned or 0) - ((before.counters.pages_scanned or 0) if before else 0)
    splits = (now.vmstat.thp_split_page or 0) - ((before.vmstat.thp_split_page or 0) if before else 0)
    if now.knobs.use_zero_pages == 0 and splits > 0 and pages >= PAGES_TO_JUDGE and cpu / pages > SLOW_SECONDS:
        yield Finding(
            code="slow_ksmd",
            sentence="ksmd is slowed down by huge pages: with each that it splits, it looks for zeros in vain",
            evidence=f"{'since the daemon looked last' if before else 'since boot'} {cpu / pages * 1e6:.1f} us of CPU "
            f"for each page scanned, {splits:,} huge pages split; use_zero_pages is 0",
            mend=f"kernel.use_zero_pages = 1 in {CONFIG}: such pages are merged with the zero page at once",
        )


FACTS_CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (ksm_absent,)
HOST_CHECKS: tuple[Callable[[Facts, Snapshot], Iterator[Finding]], ...] = (
    ksm_off,
    nobody,
    old_kernel,
    max_page_sharing,
    merge_across_nodes,
    khugepaged,
    slow_ksmd,
)
