"""What on the host keeps memory from merging. Pure."""

from collections.abc import Callable, Iterator

from ksmtuned_py.doctor.finding import Facts, Finding
from ksmtuned_py.model import KnobName, Snapshot
from ksmtuned_py.policy.room import could_find_bytes
from ksmtuned_py.units import human_bytes

CONFIG = "/etc/ksmtuned-py/config.toml"


def ksm_absent(facts: Facts) -> Iterator[Finding]:
    """The kernel was built without CONFIG_KSM."""
    if facts.snapshot is None:
        yield Finding(
            code="ksm_absent",
            sentence="this kernel has no KSM",
            evidence=f"{facts.ksm_path} does not exist",
            mend='boot a kernel with CONFIG_KSM=y, or use daemon.backend = "scan"',
            note=facts.scanning,
        )


def ksm_off(facts: Facts, now: Snapshot) -> Iterator[Finding]:
    """Nothing scans."""
    if now.knobs.run != 1 and now.guests:
        yield Finding(
            code="ksm_off",
            sentence="ksmd does not scan",
            evidence=f"{facts.ksm_path}/run is {now.knobs.run}" + (f"; {facts.daemon}" if facts.daemon else ""),
            mend="ksmtuned-py why says what it waits for" if facts.daemon else "start the daemon: ksmtuned-py run",
        )


def advisor(facts: Facts, now: Snapshot) -> Iterator[Finding]:
    """While the kernel's advisor is on, nobody else can set pages_to_scan."""
    if now.knobs.advisor_mode == "scan-time":
        yield Finding(
            code="advisor_on",
            sentence="the kernel's advisor steers pages_to_scan, and knows neither pressure nor yield",
            evidence=f"{facts.ksm_path}/advisor_mode is scan-time",
            mend=f"echo none > {facts.ksm_path}/advisor_mode; the daemon does that while it runs",
        )


def old_service(facts: Facts) -> Iterator[Finding]:
    """Somebody else who writes the knobs."""
    for name in facts.suspects:
        yield Finding(
            code="foreign_writer",
            sentence=f"{name} runs, which may write KSM's knobs",
            evidence="a process of that name in /proc",
            mend=f"stop it, or its part that writes KSM's knobs: systemctl disable --now {name}",
        )
    for unit in facts.units:
        yield Finding(
            code="foreign_service",
            sentence=f"{unit} writes KSM's knobs, too",
            evidence=f"{unit} is active, or enabled for the next boot",
            mend=f"systemctl disable --now {unit}",
        )


def old_kernel(facts: Facts, now: Snapshot) -> Iterator[Finding]:
    """Features that came with 6.7 and 6.8."""
    features: tuple[KnobName, ...] = ("smart_scan", "advisor_mode")
    missing = [name for name in features if now.knobs.get(name) is None]
    if missing:
        yield Finding(
            code="old_kernel",
            sentence=f"this kernel has no {' and no '.join(missing)}: every pass looks at every page",
            evidence=f"no {', '.join(missing)} in {facts.ksm_path}",
            mend="Linux 6.7 has smart_scan, 6.8 the advisor; without them merging costs more CPU",
        )


def max_page_sharing(now: Snapshot) -> Iterator[Finding]:
    """Contents that are kept more than once, because too many share them."""
    copies = now.counters.stable_node_dups or 0
    if copies:
        yield Finding(
            code="max_page_sharing",
            sentence=f"{now.counters.stable_node_chains} contents have more sharers than one page may have",
            evidence=f"stable_node_dups is {copies}, max_page_sharing {now.knobs.max_page_sharing}",
            mend=f"kernel.max_page_sharing in {CONFIG}; more sharers make reverse mapping slower",
        )


def merge_across_nodes(facts: Facts, now: Snapshot) -> Iterator[Finding]:
    """Equal pages of two NUMA nodes stay apart."""
    if now.knobs.merge_across_nodes == 0 and facts.numa_nodes > 1:
        yield Finding(
            code="merge_across_nodes",
            sentence="equal pages on different NUMA nodes are not merged",
            evidence=f"merge_across_nodes is 0 and the host has {facts.numa_nodes} nodes",
            mend=f"kernel.merge_across_nodes = 1 in {CONFIG}, if remote access is acceptable",
        )


def khugepaged(facts: Facts, now: Snapshot) -> Iterator[Finding]:
    """It collapses ranges with merged pages into huge pages, without a trace in cow_ksm."""
    huge, collapsed = facts.huge_pages, now.vmstat.thp_collapse_alloc or 0
    zero = bool(now.knobs.use_zero_pages and huge.max_ptes_none)
    if huge.enabled == "never" or not collapsed or not now.saved_bytes or not (huge.max_ptes_shared or zero):
        return
    yield Finding(
        code="khugepaged",
        sentence="khugepaged may undo merging: it makes huge pages of ranges that hold merged pages",
        evidence=f"max_ptes_shared is {huge.max_ptes_shared}, {collapsed} huge pages were made so since boot"
        + (f"; use_zero_pages is 1 and max_ptes_none {huge.max_ptes_none}" if zero else ""),
        mend="echo 0 > /sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_shared"
        + (" (and max_ptes_none)" if zero else ""),
    )


def swap_off(now: Snapshot) -> Iterator[Finding]:
    """Nothing catches the debt."""
    if not now.memory.swap_total_bytes:
        yield Finding(
            code="swap_off",
            sentence="there is no swap: when guests write to merged pages, only free memory pays for the copies",
            evidence=f"SwapTotal is 0, {human_bytes(now.saved_bytes)} are merged",
            mend="add a swap device; zram is enough",
        )


def pressure_off(now: Snapshot) -> Iterator[Finding]:
    """The daemon cannot hear of memory pressure at once."""
    if now.pressure is None:
        yield Finding(
            code="psi_off",
            sentence="the kernel does not tell of memory pressure: need is seen by available memory alone",
            evidence="/proc/pressure/memory cannot be read",
            mend="boot with psi=1 (CONFIG_PSI=y)",
        )


def debt(now: Snapshot) -> Iterator[Finding]:
    """More is merged than could be given back."""
    found = could_find_bytes(now.memory)
    if now.saved_bytes > found:
        yield Finding(
            code="debt",
            sentence="the host could not bear that all merged pages are written to",
            evidence=f"{human_bytes(now.saved_bytes)} merged, {human_bytes(found)} to be found (available and swap)",
            mend=f"add swap, move guests away, or set adaptive.guards.max_debt_percent in {CONFIG}",
        )


def groups_share(now: Snapshot) -> Iterator[Finding]:
    """A kernel has one KSM domain: all that merges may share with all else that does."""
    groups = sorted({guest.group for guest in now.guests if guest.ksm and guest.ksm.merging_pages})
    if len(groups) > 1:
        yield Finding(
            code="groups_share",
            sentence="guests of several groups merge, and may share pages with each other",
            evidence=f"merged pages in the groups {', '.join(group or '(none)' for group in groups)}",
            mend=f'guests.isolation = "groups" in {CONFIG}; merged counts fall at the end of the next pass only',
        )


def sensors(now: Snapshot) -> Iterator[Finding]:
    """What could not be read."""
    for problem in now.problems:
        yield Finding(code="problem", sentence="something could not be read", evidence=problem, mend="see there")


FACTS_CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (ksm_absent, old_service)
HOST_CHECKS: tuple[Callable[[Facts, Snapshot], Iterator[Finding]], ...] = (
    ksm_off,
    advisor,
    old_kernel,
    merge_across_nodes,
    khugepaged,
)
SNAPSHOT_CHECKS: tuple[Callable[[Snapshot], Iterator[Finding]], ...] = (
    max_page_sharing,
    swap_off,
    pressure_off,
    debt,
    groups_share,
    sensors,
)
