"""What the old managers have in common: now and then they look at the memory and set the scan rate anew. Pure."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

from ksmtuned_py.config import Config
from ksmtuned_py.model import Guest, Run, Snapshot, Wake
from ksmtuned_py.units import KIB

REFERENCE_KIB = 16 * KIB * KIB
"""All of them took over ksmtuned's base sleep, which is meant for a host of 16 GiB."""
MACHINE_KINDS = frozenset({"qemu"})
"""None of them knows other virtual machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What an adjustment set; with run=0 the other two are left as they are."""

    run: Run = Run.STOP
    pages_to_scan: int = 0
    sleep_millisecs: int = 0
    sentence: str = ""
    """The figures that it was made from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Periodic(ABC):
    """An old manager between two adjustments."""

    rate: Rate | None = None
    """None before the first adjustment."""
    due_seconds: float | None = None
    """When the next adjustment comes (monotonic); None before the first snapshot."""

    @abstractmethod
    def after(self, now: Snapshot, config: Config) -> "Periodic":
        """The state after one more snapshot: unchanged until it is time to adjust."""

    @property
    def wake_seconds(self) -> float:
        """When it wants to look again."""
        assert self.due_seconds is not None  # a decision is only made after a snapshot
        return self.due_seconds

    def is_due(self, now: Snapshot) -> bool:
        """Whether it is time, or somebody asks (SIGUSR1)."""
        over = self.due_seconds is not None and now.clock.monotonic_seconds >= self.due_seconds
        return over or Wake.ASKED in now.woken_by

    def due_after(self, now: Snapshot, interval_seconds: float) -> Self:
        """One interval from now."""
        return replace(self, due_seconds=now.clock.monotonic_seconds + interval_seconds)


def free_kib(now: Snapshot) -> int:
    """Free memory as it was reckoned before MemAvailable: with buffers and all of the page cache."""
    memory = now.memory
    return (memory.free_bytes + memory.buffers_bytes + memory.cached_bytes) // KIB


def resident_kib(guests: tuple[Guest, ...]) -> int:
    """The sum of the machines' resident sizes, which counts shared pages in full."""
    return sum(guest.rss_bytes for guest in guests if guest.kind in MACHINE_KINDS) // KIB


def virtual_kib(guests: tuple[Guest, ...]) -> int:
    """The sum of all that the machines have mapped, used or not."""
    return sum(guest.virtual_bytes for guest in guests if guest.kind in MACHINE_KINDS) // KIB


def clamp(pages: int, least: int, most: int) -> int:
    """Within both, as the script has it: the upper bound last."""
    return min(max(pages, least), most)
