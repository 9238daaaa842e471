"""The configuration: frozen sections; each key has a comment, a name with its unit, and a default
whose type is the schema.

The sample file is made from this module, so the comments here are what an admin reads.
"""

from typing import Annotated, Literal

from pydantic import Field, Strict

from ksmtuned_py.config.adaptive import Adaptive
from ksmtuned_py.config.advisor import Advisor
from ksmtuned_py.config.doctor import Doctor
from ksmtuned_py.config.peers import Ksmtuned, Kubevirt, Mom
from ksmtuned_py.config.types import (
    Address,
    AtStart,
    BackendName,
    Bit,
    CpuList,
    OnExit,
    Percent,
    PolicyName,
    Seconds,
    Section,
    TickSeconds,
)


class Daemon(Section):
    """The control loop."""

    mode: Literal["manage", "observe"] = Field("manage", description="observe: decide and explain, but write nothing")
    backend: AtStart[BackendName] = Field(
        "auto", description="who merges: the kernel's ksmd, our own scanner, or a model"
    )
    on_exit: OnExit = Field(
        "restore",
        description="the knobs at exit: restore what was found, keep ours of KSM, stop ksmd (run=0),\n"
        "or unmerge everything (as far as the host and each guest's cgroup have the room)",
    )
    tick_seconds: TickSeconds = Field(1.0, description="between two looks at the host while something happens")
    idle_tick_seconds: TickSeconds = Field(
        10.0, description="between two looks while nothing happens; events wake it at once"
    )
    pressure_trigger_ms: AtStart[Annotated[int, Field(ge=0, le=1000)]] = Field(
        150,
        description="memory stall within 2 s that wakes the daemon at once, and means short where memory is wary;\n"
        "0 = no trigger",
    )


class Policy(Section):
    """Who decides."""

    name: PolicyName = Field(
        "adaptive",
        description="adaptive; advisor (the kernel's own, kept at work); fixed (pin the knobs of [fixed]);\n"
        "or what another manager would do: ksmtuned, mom (oVirt), kubevirt",
    )


class Fixed(Section):
    """The fixed policy: these values, whatever happens."""

    run: Bit = Field(1, description="0 stops ksmd and keeps what is merged")
    pages_to_scan: Annotated[int, Field(ge=1, le=1_000_000)] = Field(1000, description="pages per batch")
    sleep_millisecs: Annotated[int, Field(ge=1, le=3_600_000)] = Field(
        20, description="between batches; 0 would spin a core"
    )
    smart_scan: Bit = Field(1, description="skip pages that found no partner")


class Kernel(Section):
    """KSM settings beside the scan rate. "keep" leaves them as they are; a number is set once, at the start."""

    use_zero_pages: AtStart[Literal["keep", 0, 1]] = Field(
        "keep", description="merge empty pages with the kernel's zero page"
    )
    merge_across_nodes: AtStart[Literal["keep", 0, 1]] = Field(
        "keep",
        description="0 merges within NUMA nodes only; a change unmerges everything first,\n"
        "and at exit it is put back only if nothing is merged",
    )
    max_page_sharing: AtStart[Literal["keep"] | Annotated[int, Field(ge=2, le=2**31 - 1)]] = Field(
        "keep", description="sharers of one page, at least 2; a change unmerges everything first, as above"
    )
    ksmd_nice: AtStart[Literal["keep", "need"]] = Field(
        "need",
        description="need: until memory is short ksmd gets no boost while CPUs are busy, unless the profile is eager;\n"
        "when memory is critical it goes before the guests, with CAP_SYS_NICE. Of the adaptive policy",
    )
    ksmd_cpus: AtStart[Literal["keep"] | CpuList] = Field(
        "keep",
        description="CPUs for ksmd, like 0-3,8, until memory is critical: then it may run where it might before.\n"
        "Needs CAP_SYS_NICE, which the unit has",
    )
    khugepaged: AtStart[Literal["keep", "need"]] = Field(
        "keep",
        description="need: while memory is not plenty khugepaged makes no huge pages of merged pages, nor of zero\n"
        "pages where shrink_underused is 0; needs to write its max_ptes_* (systemd/khugepaged.conf)",
    )


class Scan(Section):
    """The scan backend, for kernels without KSM."""

    reclaim: AtStart[Literal["report", "zero", "remap"]] = Field(
        "zero",
        description="report: only count; zero: swap out pages of zeros (no I/O);\n"
        "remap: share equal pages as well (experimental), of the guests of remap_guests",
    )
    zero_pages_to_disk: AtStart[bool] = Field(
        False, description="swap zero pages out even where the kernel would write them to a disk"
    )
    split_huge_below_percent: AtStart[Percent] = Field(
        15, description="leave huge pages whole while more of the host's memory is available than this"
    )
    groups: Annotated[tuple[str, ...], Strict(False)] = Field(
        (),
        description="guests share pages only with guests whose names match the same\n"
        "shell pattern; all others are one group",
    )
    remap_guests: Annotated[tuple[str, ...], Strict(False)] = Field(
        (), description='names of guests that may be remapped, as shell patterns: ["test-*"]'
    )
    remap_least_mib: AtStart[Annotated[int, Field(ge=1)]] = Field(
        65,
        description="remap only mappings of at least this size: a guest's memory, not the heaps\n"
        "of its process (at most 64 MiB each), which rely on MADV_DONTNEED giving zeros",
    )
    stop_window_ms: AtStart[Annotated[float, Field(ge=0.5, le=100)]] = Field(
        5,
        description="a remapped guest is stopped for about this long at a time, or left alone",
    )
    mappings_percent: AtStart[Annotated[float, Field(ge=1, le=80)]] = Field(
        25, description="of vm.max_map_count that a remapped guest may have in all"
    )
    worker_memory_mib: AtStart[Annotated[int, Field(ge=64)]] = Field(
        4096, description="the scanner's own memory at most: 4096 is enough for 1 TiB of guests"
    )


class GuestRule(Section):
    """What holds for the guests that all its patterns match."""

    name: str = Field("*", description="the guest's name, or another that its tools have for it")
    uuid: str = Field("*", description="its UUID")
    tag: str = Field("*", description="the tag in the domain's metadata")
    cgroup: str = Field("*", description="the path of its cgroup, which ends in its systemd unit")
    namespace: str = Field("*", description="the namespace of its pod in Kubernetes")
    merge: Literal["yes", "no", "keep"] = Field("keep", description="whether its memory may merge")
    group: str = Field("", description="whom it may share memory with; {namespace} in it is that of its pod")


class Guests(Section):
    """Which processes are guests (known hypervisors always are), and what holds for them."""

    name_patterns: AtStart[Annotated[tuple[str, ...], Strict(False)]] = Field(
        (), description='more process names, as shell patterns: ["my-vmm*"]'
    )
    cgroup_patterns: AtStart[Annotated[tuple[str, ...], Strict(False)]] = Field(
        (), description='all processes of these cgroups, too: ["*/my-vmm@*.service"]'
    )
    mergeable: AtStart[bool] = Field(True, description="any process that asked for merging is a guest, too")
    mergeable_rescan_seconds: AtStart[Seconds] = Field(60, description="between two looks at all processes for such")
    libvirt_uri: AtStart[str] = Field(
        "qemu:///system", description='where libvirt tells of its domains; "" = do without'
    )
    rule: Annotated[tuple[GuestRule, ...], Strict(False)] = Field(
        (),
        description="of these, the first whose patterns all match a guest holds for it; merge switches it while it\n"
        "runs. Rules of several files add up, config.toml's first, then those of config.d by the files' names.\n"
        "In place of this line, at the end of the file or in a drop-in, tables are easier to read:\n"
        '[[guests.rule]]\nname = "tenant-a-*"  # also uuid, cgroup, and tag (in libvirt\'s metadata)\n'
        'merge = "no"           # or "yes", or "keep": as it is\n'
        'group = "tenant-a"     # whom it may share memory with',
    )
    isolation: Literal["off", "groups"] = Field(
        "off", description="groups: only the guests of one group merge at a time, all others are switched off"
    )
    isolation_group: str = Field(
        "", description='which group, with isolation = "groups"; "" = the one that profits most'
    )
    losing_passes: Annotated[int, Field(ge=1, le=1000)] = Field(
        3, description="passes in a row in which a guest costs more memory than it saves until that is a problem"
    )
    switch_off_losing: bool = Field(False, description="switch such guests off")
    max_guest_series: AtStart[Annotated[int, Field(ge=0, le=100_000)]] = Field(
        100, description='guests that have metrics of their own; the rest are summed as guest="other"'
    )


class Metrics(Section):
    """Prometheus."""

    address: Address = Field(
        "127.0.0.1:10776",
        description='HOST:PORT or unix:/PATH of the page and /metrics; "" = none.\n'
        "The packaged service has the address of ksmtuned-py.socket: leave this alone there",
    )
    names: Annotated[tuple[str, ...], Strict(False)] = Field(
        (),
        description='more names of this host by which browsers may ask for the page: ["kvm1.example.com"]',
    )
    web_config_file: str = Field(
        "", description='the file with the certificate, the users and the tokens (docs/web.md); "" = none of them'
    )


class Config(Section):
    """The whole configuration."""

    daemon: Daemon = Daemon()
    policy: Policy = Policy()
    adaptive: Adaptive = Adaptive()
    advisor: Advisor = Advisor()
    fixed: Fixed = Fixed()
    ksmtuned: Ksmtuned = Ksmtuned()
    mom: Mom = Mom()
    kubevirt: Kubevirt = Kubevirt()
    kernel: Kernel = Kernel()
    scan: Scan = Scan()
    guests: Guests = Guests()
    doctor: Doctor = Doctor()
    metrics: Metrics = Metrics()

    @property
    def watching(self) -> "Config":
        """This configuration in the mode that writes nothing."""
        return self.model_copy(update={"daemon": self.daemon.model_copy(update={"mode": "observe"})})
