"""KSM's own files: its knobs and its counters."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Literal, get_args

KSM_DIRECTORY = "sys/kernel/mm/ksm"
THP_DIRECTORY = "sys/kernel/mm/transparent_hugepage"
RMAP_ITEM_BYTES = 64
"""The memory that the kernel spends on every candidate page (struct ksm_rmap_item, mm/ksm.c)."""


class Run(IntEnum):
    """The values of the knob `run`."""

    STOP = 0
    """ksmd sleeps, and merged pages stay merged."""
    MERGE = 1
    """ksmd scans."""
    UNMERGE = 2
    """ksmd gives every merged page back, and then sleeps."""


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
    "ksmd_nice",
    "ksmd_cpus",
    "khugepaged_max_ptes_shared",
    "khugepaged_max_ptes_none",
]
KNOB_NAMES: tuple[KnobName, ...] = get_args(KnobName)
KSMD_NICE: KnobName = "ksmd_nice"
KSMD_CPUS: KnobName = "ksmd_cpus"
"""The two knobs that are no files, but how the kernel's scheduler treats ksmd."""
KHUGEPAGED_KNOBS: tuple[KnobName, ...] = ("khugepaged_max_ptes_shared", "khugepaged_max_ptes_none")
"""How many merged pages, and how many zero pages, khugepaged copies to make a huge page."""
ASIDE: frozenset[KnobName] = frozenset({KSMD_NICE, KSMD_CPUS, *KHUGEPAGED_KNOBS})
"""Knobs outside the KSM directory. They need rights of their own, and merging goes on where those are missing."""
MUTEX_KNOBS: frozenset[KnobName] = frozenset({"run", "merge_across_nodes", "max_page_sharing"})
"""Knobs whose writes wait for a mutex that ksmd keeps for one whole batch."""
AdvisorMode = Literal["none", "scan-time"]
KnobValue = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """The settable files of the KSM directory, how ksmd is scheduled, and what khugepaged may undo.

    In knobs that were seen, None = this kernel has no such file, it is not ours to set, or ksmd is not to be seen. In
    knobs that are wanted, None = leave it alone.
    """

    run: Run | None = None
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
    ksmd_nice: int | None = None
    """From -20 to 19."""
    ksmd_cpus: str | None = None
    """The CPUs on which ksmd may run, as 0-3,8."""
    khugepaged_max_ptes_shared: int | None = None
    khugepaged_max_ptes_none: int | None = None

    @classmethod
    def of(cls, values: Mapping[str, KnobValue | None]) -> "Knobs":
        """The knobs with these values, by their names; raises ValueError for a `run` that is none of the three."""
        run = values.get("run")
        # The names are those of fields; the mode of the advisor and the CPUs are texts, and all others numbers.
        return cls(**{**values, "run": None if run is None else Run(run)})  # type: ignore[arg-type] # see above

    def get(self, name: KnobName) -> KnobValue | None:
        """The value of one knob by its file name."""
        value: KnobValue | None = getattr(self, name)
        return value

    def items(self) -> tuple[tuple[KnobName, KnobValue], ...]:
        """The knobs that are not None, with their values, in the order of KNOB_NAMES."""
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
    """The profit of all merging, in bytes, signed."""
    stable_node_chains: int | None = None
    stable_node_dups: int | None = None

    @property
    def saved_pages(self) -> int:
        """The further pages that the host would need if nothing were merged."""
        return self.pages_sharing + max(0, self.ksm_zero_pages or 0)

    @property
    def candidate_pages(self) -> int:
        """The pages for which ksmd keeps an rmap item: all that it has scanned and still tracks."""
        return self.pages_shared + self.pages_sharing + self.pages_unshared + self.pages_volatile

    @property
    def unmerged_pages(self) -> int:
        """The candidate pages that are not merged. With smart_scan the kernel counts skipped pages as volatile."""
        return self.pages_unshared + self.pages_volatile

    @property
    def unmerged_share(self) -> float:
        """The unmerged pages as a share of candidate_pages, 0 to 1; 0 when there are none."""
        return self.unmerged_pages / self.candidate_pages if self.candidate_pages else 0.0


COUNTER_NAMES: tuple[str, ...] = tuple(field.name for field in fields(Counters))
