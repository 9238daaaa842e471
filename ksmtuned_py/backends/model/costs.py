"""What ksmd's work costs in CPU time, by what it finds; bench/calibrate.py compares it with the real ksmd."""

from dataclasses import dataclass

from ksmtuned_py.backends.model.pages import Found

JIFFY_NS = 4_000_000
"""HZ=250."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Nanoseconds of CPU. Measured on Linux 6.18, AMD EPYC (Zen 5) as a virtual machine."""

    wake_ns: int = 9000
    """Each batch."""
    absent_ns: int = 25
    skipped_ns: int = 215
    merged_ns: int = 260
    first_ns: int = 560
    checksum_ns: int = 450
    """Each page that is neither skipped nor merged, after the first time."""
    stable_level_ns: int = 65
    """For each level of the stable tree on the way down."""
    unstable_level_ns: int = 260
    """The unstable tree costs more: each node's page is looked up in its process's page table."""
    merge_ns: int = 2000

    def prices(self, unstable_levels: int, stable_levels: int) -> dict[Found, int]:
        """What each kind of page costs while the trees are so high."""
        search = self.checksum_ns + stable_levels * self.stable_level_ns
        descent = unstable_levels * self.unstable_level_ns
        return {
            Found.ABSENT: self.absent_ns,
            Found.SKIPPED: self.skipped_ns,
            Found.MERGED: self.merged_ns,
            Found.FIRST: self.first_ns,
            Found.CHANGED: self.checksum_ns,
            Found.ZERO_PAGE: self.checksum_ns + self.merge_ns,
            Found.JOIN: search + self.merge_ns,
            Found.PAIR: search + descent + self.merge_ns,
            Found.UNSHARED: search + descent,
        }
