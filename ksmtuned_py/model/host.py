"""The host as it was seen at one moment."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from ksmtuned_py.model.ksm import RMAP_ITEM_BYTES, Counters, KnobName, Knobs, KnobValue


class GuestKey(NamedTuple):
    """The name of one process, and of no other, even when its PID is reused."""

    pid: int
    start_ticks: int
    """The start in clock ticks since boot, which is field 22 of /proc/PID/stat."""


class Wake(StrEnum):
    """The words for what ends the daemon's wait before its deadline."""

    STOP = "stop"
    """SIGTERM or SIGINT."""
    RELOAD = "reload"
    """SIGHUP."""
    ASKED = "asked"
    """SIGUSR1."""
    PRESSURE = "pressure"
    """Memory pressure rose."""
    GUEST = "guest"
    """A guest started."""
    SWITCHED = "switched"
    """A guest was switched off, or on again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The time of a snapshot, by each clock."""

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
    """The hugetlb pools, which are in MemTotal, but out of KSM's reach."""
    arc_reclaimable_bytes: int = 0
    """The ZFS cache above its minimum, which is free on demand, but not in MemAvailable."""
    anon_huge_bytes: int = 0
    """Private memory in huge pages (AnonHugePages); 0 where the kernel has none."""

    @property
    def base_bytes(self) -> int:
        """The memory without hugetlb pools, on which merging can act."""
        return max(1, self.total_bytes - self.hugetlb_bytes)

    @property
    def headroom_bytes(self) -> int:
        """The memory that new work could take without swapping."""
        return self.available_bytes + self.arc_reclaimable_bytes

    @property
    def available_fraction(self) -> float:
        """headroom_bytes as a share of base_bytes, 0 to 1."""
        return min(1.0, self.headroom_bytes / self.base_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """One line of /proc/pressure/memory or cpu."""

    avg10_percent: float
    avg60_percent: float
    avg300_percent: float
    total_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """Pressure (PSI): the time for which some tasks, and all tasks, waited for memory, or for a CPU."""

    some: Stall
    full: Stall


@dataclass(frozen=True, slots=True, kw_only=True)
class Vmstat:
    """Events since boot that say something about merging (/proc/vmstat). None = this kernel has no such line."""

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
    """The process's profit, signed."""
    mergeable: bool | None = None
    """Some of the process's memory may merge. None = this kernel does not say."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A cgroup that several guests are in, with a limit on the memory of all of them together."""

    cgroup: str
    limit_bytes: int
    available_bytes: int
    """What its guests may still take; page cache gives way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A process whose memory is a candidate: a virtual machine, or any process that asked for merging."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat. With the PID it names one process for good, even when the PID is reused."""
    name: str
    kind: str
    """Its kind: 'qemu', 'cloud-hypervisor', 'firecracker', 'crosvm', 'stratovirt', 'vm' (another), 'pattern' or
    'mergeable'."""
    evidence: tuple[str, ...] = ()
    """The evidence that it is a guest: 'program', 'pattern', 'cgroup', 'command line', 'kvm', 'machine', 'libvirt',
    'asked', 'flag'."""
    aliases: tuple[str, ...] = ()
    """Its names in other tools."""
    uuid: str = ""
    rss_bytes: int = 0
    huge_bytes: int | None = None
    """Its private memory in huge pages, which may be minutes old; None = not known, or it has grown much since."""
    virtual_bytes: int = 0
    """The size of all its mappings, of which it may use little."""
    ksm: GuestKsm | None = None
    cgroup: str = ""
    """The path of its cgroup, which ends in its systemd unit; '' when unknown."""
    namespace: str = ""
    """The namespace of its pod in Kubernetes, by kubelet's word; '' when unknown, or when it is in no pod."""
    room_bytes: int | None = None
    """The memory that its cgroups still let it take. None = no limit, or none to be seen."""
    slice: Slice | None = None
    """The fullest slice that it shares with other guests; None = it shares no limit, or none is to be seen."""
    group: str = ""
    """The group with which it may share memory, by the rules."""
    tag: str = ""
    """Its tag in libvirt's metadata."""
    obstacles: tuple[str, ...] = ()
    """The obstacles to merging in its libvirt domain: 'nosharepages', 'encrypted', 'hugepages', 'shared', 'vfio',
    'nvme', 'vdpa'. Without a domain there is 'nosharepages' alone, from its command line."""
    libvirt_age_seconds: float | None = None
    """The age of libvirt's word about it; None = libvirt does not know it."""
    unknown: tuple[str, ...] = ()
    """Facts that rules can ask for and that are unknown yet: 'tag', 'name' (any that libvirt has for it), 'cgroup',
    'namespace'."""
    merge: bool | None = None
    """The rules want its memory to merge, or not; None = as it is."""
    merge_reason: str = ""
    switched_off: bool = False
    """We took its memory out of merging while it runs."""
    awaits_switch: bool = False
    """It is about to be switched off, so merging had better wait for that moment."""
    losing_passes: int = 0
    """The passes in a row, up to now, for which merging it costs more memory than it saves."""
    refused: str | None = None
    """Why the scan backend leaves it, or a part of it, alone; None when it does not."""

    @property
    def key(self) -> GuestKey:
        """The name of this process, and of no other."""
        return GuestKey(self.pid, self.start_ticks)

    @property
    def has_monitor(self) -> bool:
        """Whether its QEMU's monitor is reached through a libvirt: the host's, or the one in its pod."""
        in_pod = self.kind == "qemu" and self.uuid != "" and self.namespace != ""
        return self.libvirt_age_seconds is not None or in_pod

    @property
    def kept_out(self) -> bool:
        """Whether a rule, or its libvirt domain with nosharepages, wants its memory out of merging."""
        return self.merge is False or "nosharepages" in self.obstacles

    @property
    def may_merge(self) -> bool:
        """Whether a scan of its memory can find something to merge. The whole program goes by this answer.

        What is unknown counts as yes: an account that cannot be read, a kernel without ksm_mergeable (of those we know,
        before 6.18), a guest of which libvirt has told nothing and for which no rule waits. A new guest has often not
        asked yet, and counts as no until it does.
        """
        offered = self.ksm is None or self.ksm.mergeable is not False
        return offered and not (self.kept_out or self.switched_off or self.obstacles)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignWrite:
    """A knob whose value is not what we wrote, so that somebody else must have written it."""

    knob: KnobName
    ours: KnobValue
    seen: KnobValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A wish for no scanning until then, as for a live migration, a backup, or a real-time window."""

    until_unix_seconds: float
    reason: str
    until_monotonic_seconds: float | None = None
    """The same by the clock that nobody sets; None in what an older version wrote."""
    boot_id: str = ""
    """The boot within which that clock goes on; '' = not known."""

    def left_seconds(self, clock: Clock) -> float:
        """The seconds that it still lasts; 0 or less when it is over. A clock that was set changes nothing of that.

        Where the boot is not known the clock that nobody sets may have begun anew, so the shorter time counts.
        """
        by_unix = self.until_unix_seconds - clock.unix_seconds
        if self.until_monotonic_seconds is None:
            return by_unix
        by_monotonic = self.until_monotonic_seconds - clock.monotonic_seconds
        return by_monotonic if self.boot_id else min(by_unix, by_monotonic)


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
    cpu_pressure: Pressure | None = None
    """The time for which tasks waited for a CPU. `full` is 0 before Linux 5.13."""
    idle_seconds: float | None = None
    """The time for which CPUs were idle since boot, of all together. One that waits for a disk is idle, too."""
    vmstat: Vmstat = Vmstat()
    scanner_cpu_seconds: float | None = None
    """CPU time of ksmd (or of the scan worker) since it started."""
    scanner_waited_seconds: float | None = None
    """The time for which it wanted a CPU and had none."""
    guests: tuple[Guest, ...] = ()
    foreign: tuple[ForeignWrite, ...] = ()
    """The knobs that somebody else wrote since our last write."""
    suspects: tuple[str, ...] = ()
    """Programs seen running that are known to write KSM's knobs."""
    pause: Pause | None = None
    """The pause that is in force."""
    giving_back: bool = False
    """All memory is being given back, because the policy wanted it. Until that is done, `run` reads 0 here."""
    problems: tuple[str, ...] = ()
    """Sentences on sensors that could not be read this time. Their fields have None or the default."""
    woken_by: frozenset[Wake] = frozenset()
    """The words for what ended the wait early; none when it lasted to its deadline."""

    @property
    def pause_left_seconds(self) -> float:
        """The seconds that the pause still lasts; 0 when there is none."""
        return self.pause.left_seconds(self.clock) if self.pause else 0.0

    @property
    def saved_bytes(self) -> int:
        """The memory that merging saves now. It is also the debt, which the host must find if every copy breaks."""
        return self.counters.saved_pages * self.page_bytes

    @property
    def profit_bytes(self) -> int:
        """The saved bytes less the kernel's bookkeeping; signed. It is the kernel's own figure where there is one."""
        if self.counters.general_profit is not None:
            return self.counters.general_profit
        return self.saved_bytes - self.counters.candidate_pages * RMAP_ITEM_BYTES
