"""Need: how badly the host wants memory, as states with a gap between entering and leaving."""

from enum import IntEnum

from ksmtuned_py.config import ByNeed
from ksmtuned_py.config import Need as Thresholds
from ksmtuned_py.model import Memory, Snapshot, Wake


class Need(IntEnum):
    """Ordered: a higher number wants memory more."""

    CALM = 0
    WARY = 1
    SHORT = 2
    CRITICAL = 3

    @property
    def word(self) -> str:
        """'calm' and so on."""
        return self.name.lower()


STALL_LEAVE_FACTOR = 0.5
"""A state entered for stalls is left when they are half of what entered it."""
SWAP_ENTER_FREE, SWAP_LEAVE_FREE = 0.1, 0.2
"""The free shares of swap at which need begins and ends: below, there is soon no other room than memory."""
SWAP_LEAVE_FACTOR = 0.8
"""The share of available memory that swap must fit into, for its shortage to count no more."""


def by_need(values: ByNeed, need: Need) -> float:
    """The number that holds in this state."""
    return (values.calm, values.wary, values.short, values.critical)[need]


def next_need(previous: Need, snapshot: Snapshot, thresholds: Thresholds) -> Need:
    """The state after this snapshot.

    Tasks also stall inside the limit of one cgroup, which merging cannot help while the host has memory to spare. So
    stalls count only where memory is wary at least.
    """
    need = _by_memory(previous, snapshot.memory.available_fraction * 100, thresholds)
    need = max(need, by_swap(previous, snapshot.memory))
    if need is Need.CALM:
        return need
    trigger = Need.SHORT if Wake.PRESSURE in snapshot.woken_by else Need.CALM
    return max(need, _by_stalls(previous, snapshot, thresholds), trigger)


def _by_memory(previous: Need, available_percent: float, thresholds: Thresholds) -> Need:
    gates = (
        (Need.CRITICAL, thresholds.critical_enter_percent, thresholds.critical_leave_percent),
        (Need.SHORT, thresholds.short_enter_percent, thresholds.short_leave_percent),
        (Need.WARY, thresholds.wary_enter_percent, thresholds.wary_leave_percent),
    )
    for need, enter, leave in gates:
        if available_percent < (leave if previous >= need else enter):
            return need
    return Need.CALM


def by_swap(previous: Need, memory: Memory) -> Need:
    """Wary when swap runs out, unless what is in it would fit into available memory: a small swap may be full for good.

    Guests that want their memory back find no room then, however much seems to be available.
    """
    wary = previous >= Need.WARY
    least_free = memory.swap_total_bytes * (SWAP_LEAVE_FREE if wary else SWAP_ENTER_FREE)
    fits = memory.headroom_bytes * (SWAP_LEAVE_FACTOR if wary else 1)
    used = memory.swap_total_bytes - memory.swap_free_bytes
    return Need.WARY if memory.swap_free_bytes < least_free and used > fits else Need.CALM


def _by_stalls(previous: Need, snapshot: Snapshot, thresholds: Thresholds) -> Need:
    if snapshot.pressure is None:
        return Need.CALM
    gates = (
        (Need.CRITICAL, snapshot.pressure.full.avg10_percent, thresholds.critical_stall_percent),
        (Need.SHORT, snapshot.pressure.some.avg10_percent, thresholds.short_stall_percent),
    )
    for need, stalled_percent, enter in gates:
        if stalled_percent >= (enter * STALL_LEAVE_FACTOR if previous >= need else enter):
            return need
    return Need.CALM
