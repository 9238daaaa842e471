"""What the control loop tells the worker: whom to scan, and the knobs."""

from dataclasses import dataclass

from ksmtuned_py.model import GuestKey

DEFAULT_KNOBS = {"run": 0, "pages_to_scan": 100, "sleep_millisecs": 20, "smart_scan": 1}
"""ksmd's knobs that mean something here, with ksmd's defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A process whose memory is to be scanned."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat; 0 stands for whatever process has the PID now."""
    name: str = ""
    group: str = ""
    """Name of the group: pages are merged only among processes of the same group."""
    remap: bool = False
    """Whether its owner allows the experimental remapping."""
    merge: bool = True
    """Whether it may merge; when not, it is left alone and gets back what it has merged."""

    @property
    def key(self) -> GuestKey:
        """The name of this process, and of no other."""
        return GuestKey(self.pid, self.start_ticks)
