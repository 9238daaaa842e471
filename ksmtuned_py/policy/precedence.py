"""Precedence: whether ksmd goes before the guests, and whether it holds back when all want the same CPUs. Pure.

Theory of operation
===================
On a host whose CPUs were all taken, ksmd took a fifth of the guests' throughput as it comes (nice 5). So while memory
is not short, it gets no boost where the CPUs have less to spare than the boost would take. What they have to spare is
the time that they are idle, with what ksmd took itself. When memory is critical ksmd waits for nobody.

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
BUSY_SECONDS = 10.0
"""CPUs count as busy for so long after they were, so that boosts do not come and go."""
COUNTED_SECONDS = 0.5
"""The least time between two counts. The kernel counts to a hundredth of a second."""
OLD_SECONDS = 5.0
"""A mean of longer says little of the moment at which guests came. It is counted once more before a boost begins."""
WAITED_PERCENT = 10.0
"""Where some task waited for a CPU for so much of the last 10 s, a boost at the first look waits for a count, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """What the CPUs have to spare beside ksmd, by two counts of the time that they were idle."""

    cores: float | None = None
    """None = not known."""
    is_counted: bool = False
    """Whether that says something of this moment, or nothing ever will."""
    seconds: float = -inf
    """When they were counted last (monotonic)."""
    unused_seconds: float | None = None
    """The time for which they were idle, or ksmd's, as counted then. None where one of the two is not known."""

    def after(self, now: Snapshot, *, boosting: bool) -> "Spare":
        """What there is to spare after one more look; `boosting` is whether a boost was wanted at the last one."""
        wall = now.clock.monotonic_seconds - self.seconds
        if wall < COUNTED_SECONDS:
            return self
        unused, cores, is_first = None, None, self.seconds == -inf
        if now.idle_seconds is not None and now.scanner_cpu_seconds is not None:
            unused = now.idle_seconds + now.scanner_cpu_seconds
        if unused is not None and self.unused_seconds is not None:
            cores = max(0.0, unused - self.unused_seconds) / wall
        is_new = cores is not None and (boosting or wall <= OLD_SECONDS)
        return Spare(
            cores=cores,
            is_counted=unused is None or is_new or (is_first and not _waited(now)),
            seconds=now.clock.monotonic_seconds,
            unused_seconds=unused,
        )


def _waited(now: Snapshot) -> bool:
    return now.cpu_pressure is not None and now.cpu_pressure.some.avg10_percent >= WAITED_PERCENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Precedence:
    """What decides about it besides need."""

    found_nice: int | None = None
    """The niceness with which ksmd was found; None where it cannot be seen, or is not to be touched."""
    found_cpus: str | None = None
    """The CPUs on which ksmd was found; None where that cannot be seen."""
    need: Need = Need.CALM
    """Need, apart from a single stall."""
    boost_cores: float = 0.0
    """What a boost would take."""
    spare: Spare = Spare()
    busy_cores: float = 0.0
    """What there was to spare when the CPUs were busy last."""
    busy_until_seconds: float = -inf
    """The CPUs count as busy until then (monotonic)."""
    lacked_seconds: float = -inf
    """When memory itself was last short, or going to be. A stall alone may be of the boost's own making."""

    def after(self, now: Snapshot, need: Need, boost_cores: float, *, boosting: bool, lacks: bool) -> "Precedence":
        """The precedence after one more look; `need` is without a single stall, and `lacks` without any."""
        found, seconds = now.knobs.ksmd_nice, now.clock.monotonic_seconds
        spare = self.spare.after(now, boosting=boosting)
        is_busy = spare.cores is not None and spare.cores < boost_cores
        return Precedence(
            found_nice=found if self.found_nice is None else self.found_nice,
            found_cpus=now.knobs.ksmd_cpus if self.found_cpus is None else self.found_cpus,
            need=need,
            boost_cores=boost_cores,
            spare=spare,
            busy_cores=spare.cores if spare.cores is not None and is_busy else self.busy_cores,
            busy_until_seconds=seconds + BUSY_SECONDS if is_busy else self.busy_until_seconds,
            lacked_seconds=seconds if lacks else self.lacked_seconds,
        )

    def holds_back_seconds(self, now: Snapshot, config: Config) -> float:
        """The time for which ksmd gets no boost from now on, because the CPUs are the guests'; 0 when it may."""
        if self.need > Need.WARY or config.kernel.ksmd_nice == "keep" or config.adaptive.profile == "eager":
            return 0.0
        busy_seconds = max(0.0, self.busy_until_seconds - now.clock.monotonic_seconds)
        return busy_seconds or (0.0 if self.spare.is_counted else COUNTED_SECONDS)

    def counts_first(self, now: Snapshot) -> bool:
        """Whether a boost waits only until it is known what the CPUs have to spare."""
        return not self.spare.is_counted and self.busy_until_seconds <= now.clock.monotonic_seconds

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
