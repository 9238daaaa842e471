"""Plans the writes from the knobs as they are to the knobs as wanted. A plan is safe to be cut after any write.

Three laws give the order, and tests check every prefix of every plan for them:
- pages_to_scan is never written while the advisor is on (EINVAL), and always after the advisor's mode, which resets it;
- no prefix scans faster than the faster of the two ends: sleep goes up before pages change, and down after;
- scanning stops first and starts last; but a ksmd that is starved gets CPUs before anything waits for its mutex.
"""

from collections.abc import Iterator

from ksmtuned_py.model import KHUGEPAGED_KNOBS, KSMD_CPUS, KSMD_NICE, KnobName, Knobs, KnobValue, Run, Write

STRUCTURAL: frozenset[KnobName] = frozenset({"merge_across_nodes", "max_page_sharing"})
"""Knobs that are EBUSY while anything is merged. No plan has them; they change at the start, after unmerging."""
ADVISOR_RESET_PAGES = 100
"""pages_to_scan after advisor_mode was set to none (mm/ksm.c, set_advisor_defaults)."""

_BEFORE_RATE: tuple[KnobName, ...] = (
    "advisor_max_cpu",
    "advisor_min_pages_to_scan",
    "advisor_max_pages_to_scan",
    "advisor_target_scan_time",
    "advisor_mode",
)
_AFTER_RATE: tuple[KnobName, ...] = ("smart_scan", "use_zero_pages", "stable_node_chains_prune_millisecs")


def plan(now: Knobs, wanted: Knobs) -> tuple[Write, ...]:
    """The writes that lead from `now` to `wanted`; none when nothing differs. Knobs the kernel lacks are left out."""
    return tuple(_steps(now, wanted))


def _steps(now: Knobs, wanted: Knobs) -> Iterator[Write]:
    nice = list(_step(KSMD_NICE, now.ksmd_nice, wanted.ksmd_nice))
    nicer = (wanted.ksmd_nice or 0) > (now.ksmd_nice or 0)
    if not nicer:
        yield from nice
    yield from _step(KSMD_CPUS, now.ksmd_cpus, wanted.ksmd_cpus)
    yield from _knob_steps(now, wanted)
    for name in KHUGEPAGED_KNOBS:
        yield from _step(name, now.get(name), wanted.get(name))
    if nicer:
        yield from nice


def _knob_steps(now: Knobs, wanted: Knobs) -> Iterator[Write]:
    starting = wanted.run == Run.MERGE
    if not starting:
        yield from _step("run", now.run, wanted.run)
    for name in _BEFORE_RATE:
        yield from _step(name, now.get(name), wanted.get(name))
    yield from _rate_steps(now, wanted)
    for name in _AFTER_RATE:
        yield from _step(name, now.get(name), wanted.get(name))
    if starting:
        yield from _step("run", now.run, wanted.run)


def _rate_steps(now: Knobs, wanted: Knobs) -> Iterator[Write]:
    sleep = list(_step("sleep_millisecs", now.sleep_millisecs, wanted.sleep_millisecs))
    slower = (wanted.sleep_millisecs or 0) > (now.sleep_millisecs or 0)
    if slower:
        yield from sleep
    yield from _pages_steps(now, wanted)
    if not slower:
        yield from sleep


def _pages_steps(now: Knobs, wanted: Knobs) -> Iterator[Write]:
    advisor_was_on = now.advisor_mode == "scan-time"
    advisor_stays_on = advisor_was_on and wanted.advisor_mode != "none"
    advisor_comes_on = now.advisor_mode == "none" and wanted.advisor_mode == "scan-time"
    if advisor_stays_on or advisor_comes_on:
        return
    yield from _step(
        "pages_to_scan", ADVISOR_RESET_PAGES if advisor_was_on else now.pages_to_scan, wanted.pages_to_scan
    )


def _step(name: KnobName, old: KnobValue | None, new: KnobValue | None) -> Iterator[Write]:
    if old is not None and new is not None and old != new:
        yield Write(knob=name, old=old, new=new)
