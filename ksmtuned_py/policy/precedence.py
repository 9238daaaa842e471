"""Precedence: whether ksmd goes before the guests or behind them when all want the same CPUs. Pure.

On a host whose CPUs were all taken, ksmd took a fifth of the guests' throughput as it comes (nice 5) and got a quarter
of a core; at nice 19 it took 6 % and got 2 %, and in the idle class it got nothing. SCHED_BATCH changed nothing. So
need decides: while memory is plenty nobody waits for ksmd, and when it is critical ksmd waits for nobody.
"""

from dataclasses import dataclass

from ksmtuned_py.config import Config
from ksmtuned_py.model import IDLE_NICE, Pressure, Snapshot
from ksmtuned_py.policy.need import Need

BEHIND_NICE, BEFORE_NICE = 19, -5
"""Behind guests, and before them; they have 0."""
BUSY_ENTER_PERCENT, BUSY_LEAVE_PERCENT = 20.0, 10.0
"""Of 10 s in which some task waited for a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precedence:
    """What decides about it besides need."""

    found_nice: int | None = None
    """The niceness with which ksmd was found; None where it cannot be seen, or is not to be touched."""
    found_cpus: str | None = None
    """The CPUs on which ksmd was found; None where that cannot be seen."""
    is_busy: bool = False
    """Tasks wait for CPUs."""

    def after(self, now: Snapshot) -> "Precedence":
        """The precedence after one more look."""
        found = now.knobs.ksmd_nice if self.found_nice is None else self.found_nice
        return Precedence(
            found_nice=found,
            found_cpus=now.knobs.ksmd_cpus if self.found_cpus is None else self.found_cpus,
            is_busy=_is_busy(now.cpu_pressure, was_busy=self.is_busy),
        )

    def nice(self, need: Need, config: Config) -> int | None:
        """The nice value that ksmd is to have; None = as it is."""
        if self.found_nice is None or config.kernel.ksmd_nice == "keep":
            return None
        if config.policy.name != "adaptive":
            return self.found_nice  # another one's boosts are made for ksmd as it comes
        behind = config.adaptive.profile != "eager"
        if need is Need.CRITICAL:
            return min(self.found_nice, BEFORE_NICE)
        if need is Need.CALM and behind:
            return IDLE_NICE
        if need is Need.WARY and behind and self.is_busy:
            return max(self.found_nice, BEHIND_NICE)
        return self.found_nice

    def cpus(self, need: Need, config: Config) -> str | None:
        """The CPUs that ksmd is to have; None = as they are. When memory is critical, saving it is all that counts."""
        if self.found_cpus is None or config.kernel.ksmd_cpus == "keep":
            return None
        return self.found_cpus if need is Need.CRITICAL else config.kernel.ksmd_cpus


def _is_busy(pressure: Pressure | None, *, was_busy: bool) -> bool:
    enter = BUSY_LEAVE_PERCENT if was_busy else BUSY_ENTER_PERCENT
    return pressure is not None and pressure.some.avg10_percent >= enter
