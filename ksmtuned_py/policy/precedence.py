"""Precedence: whether ksmd goes before the guests, and whether it holds back when all want the same CPUs. Pure.

Theory of operation
===================
On a host whose CPUs were all taken, ksmd took a fifth of the guests' throughput as it comes (nice 5). So while memory
is not short, and tasks wait for CPUs, it gets no boost. When memory is critical it waits for nobody.

It never goes behind the guests by the scheduler. ksmd holds a guest's memory map lock while it looks for the next page.
Where it loses its CPU then, the guest waits for as long as ksmd does: an mmap of the guest took 0.5 s with ksmd at
nice 19, and 1.1 s with ksmd in the idle class, where it took 0.05 s with ksmd as it comes.
"""

from dataclasses import dataclass
from math import inf

from ksmtuned_py.config import Config
from ksmtuned_py.model import Snapshot
from ksmtuned_py.policy.need import Need

BEFORE_NICE = -5
"""Before guests, which have 0."""
BUSY_PERCENT = 20.0
"""Of 10 s in which some task waited for a CPU."""
BUSY_SECONDS = 60.0
"""They count as busy for so long: fewer tasks wait without a boost, which would begin again at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precedence:
    """What decides about it besides need."""

    found_nice: int | None = None
    """The niceness with which ksmd was found; None where it cannot be seen, or is not to be touched."""
    found_cpus: str | None = None
    """The CPUs on which ksmd was found; None where that cannot be seen."""
    busy_until_seconds: float = -inf
    """Tasks wait for CPUs until then (monotonic)."""
    lacked_seconds: float = -inf
    """When memory itself was last short, or going to be. A stall alone may be of the boost's own making."""

    def after(self, now: Snapshot, *, lacks: bool) -> "Precedence":
        """The precedence after one more look, at which memory is short, or going to be."""
        found, seconds, pressure = now.knobs.ksmd_nice, now.clock.monotonic_seconds, now.cpu_pressure
        is_busy = pressure is not None and pressure.some.avg10_percent >= BUSY_PERCENT
        return Precedence(
            found_nice=found if self.found_nice is None else self.found_nice,
            found_cpus=now.knobs.ksmd_cpus if self.found_cpus is None else self.found_cpus,
            busy_until_seconds=seconds + BUSY_SECONDS if is_busy else self.busy_until_seconds,
            lacked_seconds=seconds if lacks else self.lacked_seconds,
        )

    def holds_back_seconds(self, now: Snapshot, need: Need, config: Config) -> float:
        """The time for which ksmd gets no boost from now on, because the CPUs are the guests'; 0 when it may."""
        if need > Need.WARY or config.kernel.ksmd_nice == "keep" or config.adaptive.profile == "eager":
            return 0.0
        return max(0.0, self.busy_until_seconds - now.clock.monotonic_seconds)

    def nice(self, need: Need, config: Config) -> int | None:
        """The nice value that ksmd is to have; None = as it is."""
        if self.found_nice is None or config.kernel.ksmd_nice == "keep":
            return None
        before = need is Need.CRITICAL and config.policy.name == "adaptive"  # others' boosts are for ksmd as it comes
        return min(self.found_nice, BEFORE_NICE) if before else self.found_nice

    def cpus(self, need: Need, config: Config) -> str | None:
        """The CPUs that ksmd is to have; None = as they are. When memory is critical, saving it is all that counts."""
        if self.found_cpus is None or config.kernel.ksmd_cpus == "keep":
            return None
        return self.found_cpus if need is Need.CRITICAL else config.kernel.ksmd_cpus
