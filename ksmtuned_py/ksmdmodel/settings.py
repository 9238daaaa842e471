"""ksmd's knobs: their defaults, the values each takes, and which of them a kernel has."""

from dataclasses import dataclass

from ksmtuned_py.model import ASIDE, COUNTER_NAMES, KNOB_NAMES, AdvisorMode, KnobName, Knobs, KnobValue, Run

U32_MAX = 2**32 - 1
FILES: tuple[KnobName, ...] = tuple(name for name in KNOB_NAMES if name not in ASIDE)
"""The model's ksmd is alone on its CPU, and its khugepaged has the kernel's defaults."""
BOOLEANS: frozenset[KnobName] = frozenset({"smart_scan", "use_zero_pages", "merge_across_nodes"})
LOCKED_WHILE_MERGED: frozenset[KnobName] = frozenset({"merge_across_nodes", "max_page_sharing"})
LOWEST: dict[KnobName, int] = {"max_page_sharing": 2, "advisor_target_scan_time": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The files that a kernel's KSM directory has."""

    knobs: tuple[KnobName, ...] = FILES
    counters: tuple[str, ...] = COUNTER_NAMES


LINUX_6_12 = Features()
LINUX_6_1 = Features(
    knobs=tuple(name for name in FILES if name != "smart_scan" and not name.startswith("advisor_")),
    counters=tuple(
        name
        for name in COUNTER_NAMES
        if name not in ("pages_scanned", "pages_skipped", "ksm_zero_pages", "general_profit")
    ),
)


@dataclass(slots=True, kw_only=True)
class Settings:
    """The knobs as they are, at the kernel's defaults."""

    run: Run = Run.STOP
    pages_to_scan: int = 100
    sleep_millisecs: int = 20
    smart_scan: int = 1
    use_zero_pages: int = 0
    merge_across_nodes: int = 1
    max_page_sharing: int = 256
    stable_node_chains_prune_millisecs: int = 2000
    advisor_mode: AdvisorMode = "none"
    advisor_max_cpu: int = 70
    advisor_min_pages_to_scan: int = 500
    advisor_max_pages_to_scan: int = 30000
    advisor_target_scan_time: int = 200

    def knobs(self, features: Features) -> Knobs:
        """Returns what reading the files gives."""
        return Knobs.of({name: getattr(self, name) for name in features.knobs})

    def refusal(self, knob: KnobName, value: KnobValue, *, merged: bool) -> str | None:
        """Returns why the kernel would not take a value, beginning with its error's name; None when it would."""
        if knob == "advisor_mode":
            return None if value in ("none", "scan-time") else "EINVAL: neither 'none' nor 'scan-time'"
        if knob == "pages_to_scan" and self.advisor_mode != "none":
            return "EINVAL: the advisor sets pages_to_scan"
        highest = 1 if knob in BOOLEANS else Run.UNMERGE if knob == "run" else U32_MAX
        if not isinstance(value, int) or not LOWEST.get(knob, 0) <= value <= highest:
            return f"EINVAL: {value} is out of range"
        if knob in LOCKED_WHILE_MERGED and merged and value != getattr(self, knob):
            return "EBUSY: pages are still merged"
        return None
