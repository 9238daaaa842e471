"""Keeps khugepaged from undoing what ksmd merges, as long as memory is needed. Pure.

khugepaged makes a huge page of a range with up to max_ptes_shared merged pages and max_ptes_none zero pages. It copies
them all, and no counter of KSM tells. ksmd then splits the range again, and both have worked for nothing. While memory
is plenty that is what guests want, and so its settings are as they were found.
"""

from dataclasses import dataclass

from ksmtuned_py.config import Config
from ksmtuned_py.model import KHUGEPAGED_KNOBS, KnobName, Run, Snapshot
from ksmtuned_py.policy.need import Need


@dataclass(frozen=True, slots=True, kw_only=True)
class KhugepagedLimits:
    """Its settings as they were found; None where the kernel has none."""

    found: tuple[tuple[KnobName, int | None], ...] = ()
    may_undo: bool = False
    """Something is merged, or will be. Else others would get fewer huge pages for nothing."""

    def after(self, now: Snapshot) -> "KhugepagedLimits":
        """The settings after one more look: those of the first."""
        return KhugepagedLimits(
            found=self.found or tuple((name, _number(now, name)) for name in KHUGEPAGED_KNOBS),
            may_undo=now.knobs.run == Run.MERGE or now.saved_bytes > 0,
        )

    def wanted(self, need: Need, config: Config) -> dict[str, int | None]:
        """The settings that it is to have; none where they are to be kept."""
        if config.kernel.khugepaged == "keep":
            return {}
        holds = self.may_undo and (need > Need.CALM or config.adaptive.profile == "eager")
        return {name: 0 if holds and found is not None else found for name, found in self.found}


def _number(now: Snapshot, name: KnobName) -> int | None:
    value = now.knobs.get(name)
    return value if isinstance(value, int) else None
