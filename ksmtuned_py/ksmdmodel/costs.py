"""The CPU time of ksmd's work, by what it finds; bench/calibrate.py compares it with the real ksmd."""

from dataclasses import dataclass

from ksmtuned_py.ksmdmodel.pages import Found

JIFFY_NS = 4_000_000
"""One jiffy at HZ=250."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Nanoseconds of CPU, measured on Linux 6.18 on an AMD EPYC (Zen 5) with 2 virtual CPUs and other work beside it.

    Runs differ by a quarter, up to a half where pages are cold. A load's CPU time to 95 % comes out within 20 %.
    """

    wake_ns: int = 11_000
    """The cost of each batch."""
    absent_ns: int = 30
    skipped_ns: int = 240
    merged_ns: int = 280
    first_ns: int = 950
    checksum_ns: int = 750
    """The cost of each page that is neither skipped nor merged, after the first time."""
    stable_level_ns: int = 70
    """The cost of each level of the stable tree on the way down."""
    unstable_level_ns: int = 265
    """The cost of each level of the unstable tree: each node's page is looked up in its process's page table."""
    merge_ns: int = 1650
    split_ns: int = 2_500_000
    """The cost of a huge page's split, which looks for zeros in all of it (Linux 6.12)."""

    def prices(self, unstable_levels: int, stable_levels: int) -> dict[Found, int]:
        """Returns what each kind of page costs while the trees are so high, in nanoseconds."""
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
