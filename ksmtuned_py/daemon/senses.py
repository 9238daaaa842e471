"""The senses of a real host: what is read at each tick, apart from the backend that merges."""

from dataclasses import replace
from typing import TYPE_CHECKING

from ksmtuned_py.door import Door
from ksmtuned_py.guests.roster import Finder
from ksmtuned_py.model import Guest, Memory, Pressure, Vmstat
from ksmtuned_py.sensors.cpus import read_idle_seconds
from ksmtuned_py.sensors.memory import read_memory
from ksmtuned_py.sensors.pressure import read_cpu_pressure, read_pressure
from ksmtuned_py.sensors.vmstat import read_vmstat

if TYPE_CHECKING:
    from ksmtuned_py.backends.scan import ScanBackend


class KernelSenses:
    """Reads the real host, or a tree that looks like one."""

    def __init__(self, door: Door, finder: Finder, cpus: int) -> None:
        self.cpus = cpus
        self._door = door
        self._finder = finder

    def memory(self) -> Memory:
        """The host's memory now, from /proc/meminfo and ZFS."""
        return read_memory(self._door)

    def pressure(self) -> Pressure | None:
        """Memory pressure now, from /proc/pressure/memory."""
        return read_pressure(self._door)

    def cpu_pressure(self) -> Pressure | None:
        """Pressure on CPUs now, from /proc/pressure/cpu."""
        return read_cpu_pressure(self._door)

    def idle_seconds(self) -> float | None:
        """The seconds for which CPUs were idle since boot, from /proc/stat."""
        return read_idle_seconds(self._door)

    def vmstat(self) -> Vmstat:
        """The kernel's events since boot, from /proc/vmstat."""
        return read_vmstat(self._door)

    def guests(self, now_seconds: float) -> tuple[Guest, ...]:
        """The guests found among the processes; `now_seconds` is monotonic."""
        return self._finder.find(now_seconds)

    def suspects(self) -> tuple[str, ...]:
        """The programs found among the processes that are known to write KSM's knobs."""
        return self._finder.suspects

    def problems(self) -> tuple[str, ...]:
        """The problems of the last look at the processes, as sentences."""
        return self._finder.problems


class ScanSenses(KernelSenses):
    """Reads the real host, and tells the scanner of its guests."""

    def __init__(self, backend: "ScanBackend", door: Door, finder: Finder, cpus: int) -> None:
        super().__init__(door, finder, cpus)
        self._backend = backend

    def guests(self, now_seconds: float) -> tuple[Guest, ...]:
        """The guests, which are scanned from now on, whether they are offered to ksmd or not.

        They come without the kernel's account, which says nothing about our scanner.
        """
        found = super().guests(now_seconds)
        self._backend.watch(found)
        refused = self._backend.refused
        return tuple(replace(guest, ksm=None, refused=refused.get(guest.key)) for guest in found)

    def problems(self) -> tuple[str, ...]:
        """The problems of the last look at the processes, and those of the scanner, as sentences."""
        return (*super().problems(), *self._backend.problems)
