"""The nouns of the house: what was seen, what is wanted, what was written. Frozen, pure, with units in the names."""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Literal, get_args

KSM_DIRECTORY = "sys/kernel/mm/ksm"
RMAP_ITEM_BYTES = 64
"""What the kernel pays for every candidate page (struct ksm_rmap_item, mm/ksm.c)."""

KnobName = Literal[
    "run",
    "pages_to_scan",
    "sleep_millisecs",
    "smart_scan",
    "use_zero_pages",
    "merge_across_nodes",
    "max_page_sharing",
    "stable_node_chains_prune_millisecs",
    "advisor_mode",
    "advisor_max_cpu",
    "advisor_min_pages_to_scan",
    "advisor_max_pages_to_scan",
    "advisor_target_scan_time",
]
KNOB_NAMES: tuple[KnobName, ...] = get_args(KnobName)
MUTEX_KNOBS: frozenset[KnobName] = frozenset({"run", "merge_across_nodes", "max_page_sharing"})
"""Writes of these wait for a mutex that ksmd holds for one whole batch."""
AdvisorMode = Literal["none", "scan-time"]
KnobValue = int | AdvisorMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """The settable files of the KSM directory. Seen: None = this kernel has no such file. Wanted: None = leave it."""

    run: int | None = None
    pages_to_scan: int | None = None
    sleep_millisecs: int | None = None
    smart_scan: int | None = None
    use_zero_pages: int | None = None
    merge_across_nodes: int | None = None
    max_page_sharing: int | None = None
    stable_node_chains_prune_millisecs: int | None = None
    advisor_mode: AdvisorMode | None = None
    advisor_max_cpu: int | None = None
    advisor_min_pages_to_scan: int | None = None
    advisor_max_pages_to_scan: int | None = None
    advisor_target_scan_time: int | None = None

    def get(self, name: KnobName) -> KnobValue | None:
        """The value of one knob by its file name."""
        value: KnobValue | None = getattr(self, name)
        return value

    def items(self) -> tuple[tuple[KnobName, KnobValue], ...]:
        """The knobs that are there (or wanted), in the order of KNOB_NAMES."""
        return tuple((name, value) for name in KNOB_NAMES if (value := self.get(name)) is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """The read-only files of the KSM directory, in pages unless said otherwise. None = this kernel has no such file."""

    pages_shared: int = 0
    pages_sharing: int = 0
    pages_unshared: int = 0
    pages_volatile: int = 0
    full_scans: int = 0
    pages_scanned: int | None = None
    pages_skipped: int | None = None
    ksm_zero_pages: int | None = None
    general_profit: int | None = None
    """Bytes, signed."""
    stable_node_chains: int | None = None
    stable_node_dups: int | None = None

    @property
    def saved_pages(self) -> int:
        """Pages the host would need on top if nothing were merged."""
        return self.pages_sharing + max(0, self.ksm_zero_pages or 0)

    @property
    def candidate_pages(self) -> int:
        """Pages ksmd keeps an rmap item for: everything it has looked at and still tracks."""
        return self.pages_shared + self.pages_sharing + self.pages_unshared + self.pages_volatile


COUNTER_NAMES: tuple[str, ...] = tuple(field.name for field in fields(Counters))


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """When the snapshot was taken."""

    monotonic_seconds: float
    unix_seconds: float
    local_minute_of_day: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The host's memory, from /proc/meminfo and, with ZFS, from arcstats."""

    total_bytes: int
    available_bytes: int
    free_bytes: int = 0
    buffers_bytes: int = 0
    cached_bytes: int = 0
    swap_total_bytes: int = 0
    swap_free_bytes: int = 0
    hugetlb_bytes: int = 0
    """The hugetlb pools: in MemTotal, but out of KSM's reach."""
    arc_reclaimable_bytes: int = 0
    """ZFS cache above its minimum: free on demand, but not in MemAvailable."""

    @property
    def base_bytes(self) -> int:
        """The memory that this daemon can do anything about."""
        return max(1, self.total_bytes - self.hugetlb_bytes)

    @property
    def headroom_bytes(self) -> int:
        """What new work could take without swapping."""
        return self.available_bytes + self.arc_reclaimable_bytes

    @property
    def available_fraction(self) -> float:
        """headroom_bytes as a share of base_bytes, 0 to 1."""
        return min(1.0, self.headroom_bytes / self.base_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """One line of /proc/pressure/memory."""

    avg10_percent: float
    avg60_percent: float
    avg300_percent: float
    total_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """Memory pressure (PSI): how long some tasks, and all tasks, waited for memory."""

    some: Stall
    full: Stall


@dataclass(frozen=True, slots=True, kw_only=True)
class Vmstat:
    """The lines of /proc/vmstat that tell on merging: events since boot. None = this kernel has no such line."""

    cow_ksm: int | None = None
    """Writes that broke a merged page."""
    ksm_swpin_copy: int | None = None
    swpin_zero: int | None = None
    swpout_zero: int | None = None
    pswpin: int | None = None
    pswpout: int | None = None
    oom_kill: int | None = None
    thp_collapse_alloc: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestKsm:
    """A process's own KSM account (/proc/PID/ksm_stat), in pages unless said otherwise."""

    rmap_items: int = 0
    merging_pages: int = 0
    zero_pages: int = 0
    profit_bytes: int = 0
    """Signed."""
    mergeable: bool | None = None
    """Some of its memory may merge. None = this kernel does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A process whose memory is a candidate: a virtual machine, or any process that asked for merging."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: with the PID it names one process for good, whatever PIDs are reused."""
    name: str
    kind: str
    """What found it: 'qemu', 'cloud-hypervisor', 'firecracker', 'crosvm', 'pattern', or 'mergeable'."""
    uuid: str = ""
    rss_bytes: int = 0
    ksm: GuestKsm | None = None

    @property
    def key(self) -> tuple[int, int]:
        """What stays the same for this process and no other."""
        return (self.pid, self.start_ticks)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignWrite:
    """A knob that does not hold what we wrote: somebody else holds it."""

    knob: KnobName
    ours: KnobValue
    seen: KnobValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that is known about the host at one moment."""

    clock: Clock
    backend: str
    page_bytes: int
    cpus: int
    knobs: Knobs
    counters: Counters
    memory: Memory
    pressure: Pressure | None = None
    vmstat: Vmstat = Vmstat()
    scanner_cpu_seconds: float | None = None
    """CPU time of ksmd (or of the scan worker) since it started."""
    guests: tuple[Guest, ...] = ()
    foreign: tuple[ForeignWrite, ...] = ()
    """Knobs somebody else wrote since our last write."""
    suspects: tuple[str, ...] = ()
    """Programs seen running that are known to write these knobs."""
    problems: tuple[str, ...] = ()
    """Sensors that could not be read this time, as sentences; their fields hold None or the default."""
    woken_by: frozenset[str] = frozenset()
    """What ended the wait before its deadline: 'pressure', 'guest', 'asked' (SIGUSR1), 'reload'."""

    @property
    def saved_bytes(self) -> int:
        """Memory that merging saves now. The same number is the debt: what the host must find if every copy breaks."""
        return self.counters.saved_pages * self.page_bytes

    @property
    def profit_bytes(self) -> int:
        """saved_bytes less the kernel's bookkeeping; signed. The kernel's own figure where it has one."""
        if self.counters.general_profit is not None:
            return self.counters.general_profit
        return self.saved_bytes - self.counters.candidate_pages * RMAP_ITEM_BYTES


class Mode(StrEnum):
    """What the daemon is doing with KSM."""

    OFF = "off"
    """run=0: nothing scans; what is merged stays merged."""
    BOOST = "boost"
    CRUISE = "cruise"
    REST = "rest"
    """Scanning goes on, but the passes are far apart, because they find little."""
    PINNED = "pinned"
    """The knobs are what the config says."""
    HELD = "held"
    """Hands off: somebody else writes the knobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one rule said this tick, whether it won or not; `why` prints them all."""

    rule: str
    fired: bool
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a policy wants, and why."""

    mode: Mode
    rule: str
    """The code of the rule that won: a few fixed words, good as a metric label."""
    reason: str
    """One sentence with the numbers."""
    knobs: Knobs
    """Wanted; None = leave alone."""
    next_tick_seconds: float
    verdicts: tuple[Verdict, ...] = ()
    would_change: tuple[str, ...] = ()
    """What would have to happen for another decision, as sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One step of a plan."""

    knob: KnobName
    old: KnobValue
    new: KnobValue


class WriteStatus(StrEnum):
    """How a write ended."""

    OK = "ok"
    DRY = "dry"
    """Not tried: we only watch."""
    PENDING = "pending"
    """Still waiting for ksmd's mutex; the next ticks look after it."""
    REFUSED = "refused"
    """The kernel said EINVAL, EBUSY or EACCES."""
    LOST = "lost"
    """It was accepted, but reads back as something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """What became of one step of a plan."""

    write: Write
    status: WriteStatus
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a plan: one result for each write that was tried."""

    results: tuple[WriteResult, ...] = ()
