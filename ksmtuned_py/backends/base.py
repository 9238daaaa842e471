"""What a backend is: something that merges, with ksmd's knobs and ksmd's counters."""

from typing import Protocol

from ksmtuned_py.model import Counters, Knobs, Write, WriteResult


class Backend(Protocol):
    """Who merges. A policy never knows which one it drives."""

    @property
    def name(self) -> str:
        """'kernel', 'memory' or 'scan'."""

    @property
    def page_bytes(self) -> int:
        """Bytes of one page in the counters."""

    def knobs(self) -> Knobs:
        """The settings as they are now; None for those this backend does not have."""

    def counters(self) -> Counters:
        """What was merged and scanned so far."""

    def scanner_cpu_seconds(self) -> float | None:
        """CPU time the scanner has used since it started; None when nobody can say."""

    def write(self, write: Write) -> WriteResult:
        """Set one knob and read it back; returns within a second whatever the scanner is doing."""

    def unmerge_seconds(self) -> float:
        """CPU time of a run=2 on its way, which grows while that is not stuck; 0 where the counters fall by themselves.

        ksmd's counters fall only when it is done with a whole guest.
        """

    def close(self) -> None:
        """Let go of what the backend holds; merged memory stays merged."""
