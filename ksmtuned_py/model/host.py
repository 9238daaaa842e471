"""The host as it was seen at one moment."""

from dataclasses import dataclass, field

from ksmtuned_py.model.ksm import RMAP_ITEM_BYTES, Counters, KnobName, Knobs, KnobValue


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
    thp_split_page: int | None = None


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
    """'qemu', 'cloud-hypervisor', 'firecracker', 'crosvm', 'stratovirt', 'vm' (another), 'pattern', or 'mergeable'."""
    evidence: tuple[str, ...] = field(default=(), compare=False)
    """What made it one: 'program', 'pattern', 'cgroup', 'command line', 'kvm', 'machine', 'libvirt', 'asked', 'flag'.
    How it was found is no part of what it is."""
    aliases: tuple[str, ...] = ()
    """What else it is called, by other tools."""
    uuid: str = ""
    rss_bytes: int = 0
    virtual_bytes: int = 0
    """All it has mapped, of which it need not use much."""
    ksm: GuestKsm | None = None
    cgroup: str = ""
    """Its path, which ends in its systemd unit; '' when nobody knows."""
    room_bytes: int | None = None
    """What its cgroups let it take on top. None = no limit, or none to be seen."""
    group: str = ""
    """Whom it may share memory with, by the rules."""
    tag: str = ""
    """Its tag in libvirt's metadata."""
    obstacles: tuple[str, ...] = ()
    """What its libvirt domain says against merging: 'nosharepages', 'encrypted', 'hugepages', 'shared', 'vfio', 'nvme',
    'vdpa'."""
    libvirt_age_seconds: float | None = None
    """How old that is; None = libvirt does not know it."""
    unknown: tuple[str, ...] = ()
    """What rules can ask for and nobody knows yet: 'tag', 'name' (any that libvirt has for it), 'cgroup'."""
    merge: bool | None = None
    """What the rules want of its memory; None = as it is."""
    merge_reason: str = ""
    switched_off: bool = False
    """We took its memory out of merging while it runs."""
    awaits_switch: bool = False
    """It is about to be, so that merging had better wait for that moment."""
    losing_passes: int = 0
    """Passes in a row, up to now, that it costs more memory than it saves."""
    refused: str = ""
    """Why the scan backend leaves it alone, or a part of it; '' when it does not."""

    @property
    def key(self) -> tuple[int, int]:
        """What stays the same for this process and no other."""
        return (self.pid, self.start_ticks)

    @property
    def kept_out(self) -> bool:
        """Somebody wants its memory out of merging: a rule, or its libvirt domain with nosharepages."""
        return self.merge is False or "nosharepages" in self.obstacles

    @property
    def may_merge(self) -> bool:
        """Whether a look at its memory can find something to merge: the one answer for every room.

        What nobody knows counts as yes: an account that cannot be read, a kernel without ksm_mergeable (before 6.18
        of those we know), a guest that libvirt has told nothing of and no rule is waiting for. A new guest has often
        not asked yet, and is a no until it does.
        """
        offered = self.ksm is None or self.ksm.mergeable is not False
        return offered and not (self.kept_out or self.switched_off or self.obstacles)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignWrite:
    """A knob that does not hold what we wrote: somebody else holds it."""

    knob: KnobName
    ours: KnobValue
    seen: KnobValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Somebody asked for no scanning until then: for a live migration, a backup, a real-time window."""

    until_unix_seconds: float
    reason: str


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
    pause: Pause | None = None
    """The pause that is in force."""
    problems: tuple[str, ...] = ()
    """Sensors that could not be read this time, as sentences; their fields hold None or the default."""
    woken_by: frozenset[str] = frozenset()
    """What ended the wait before its deadline: 'pressure', 'guest', 'switched', 'asked' (SIGUSR1), 'reload'."""

    @property
    def pause_left_seconds(self) -> float:
        """How long the pause still lasts; 0 when there is none."""
        return self.pause.until_unix_seconds - self.clock.unix_seconds if self.pause else 0.0

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
