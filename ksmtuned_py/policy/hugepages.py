"""What merging has cost in huge pages, beside what it has gained. Pure.

ksmd splits a huge page as soon as one of its pages merges. The kernel counts all splits of the host, also those of
reclaim, so only those count here between two looks at which ksmd ran. What was gained is what KSM's counters show, and
what the splits themselves gave back (policy/splits.py). MemAvailable alone also knows of everything else on the host.
"""

from dataclasses import dataclass, replace

from ksmtuned_py.model import Run, Snapshot
from ksmtuned_py.units import GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class HugeCost:
    """The cost in huge pages since the daemon began."""

    split: int = 0
    """The huge pages that were split while ksmd ran."""
    collapsed: int = 0
    """The huge pages that khugepaged made meanwhile. ksmd may split them again."""
    began_bytes: int | None = None
    """What was saved when it began; None before the first look."""
    gained_bytes: int = 0
    """What is saved more since then; negative when memory was given back."""

    @property
    def split_per_gib(self) -> float | None:
        """The huge pages split for each GiB gained; None when nothing is gained."""
        return self.split / (self.gained_bytes / GIB) if self.gained_bytes > 0 else None

    def after(self, before: Snapshot | None, now: Snapshot, freed_bytes: int) -> "HugeCost":
        """The cost after one more look; `freed_bytes` is what splits gave back that no counter shows."""
        began = now.saved_bytes if self.began_bytes is None else self.began_bytes
        ran = before if before is not None and Run.MERGE in (before.knobs.run, now.knobs.run) else now
        return replace(
            self,
            split=self.split + max(0, _splits(now) - _splits(ran)),
            collapsed=self.collapsed + max(0, _collapses(now) - _collapses(ran)),
            began_bytes=began,
            gained_bytes=now.saved_bytes - began + freed_bytes,
        )


def _splits(seen: Snapshot) -> int:
    return seen.vmstat.thp_split_page or 0


def _collapses(seen: Snapshot) -> int:
    return seen.vmstat.thp_collapse_alloc or 0
