"""The interface of a backend: something that merges, with ksmd's knobs and ksmd's counters."""

from typing import Protocol

from ksmtuned_py.model import Counters, Knobs, Write, WriteResult


class Backend(Protocol):
    """Merges memory. A policy never knows which backend it drives."""

    @property
    def name(self) -> str:
        """'kernel', 'model' or 'scan'."""

    @property
    def page_bytes(self) -> int:
        """Bytes of one page in the counters."""

    def knobs(self) -> Knobs:
        """Returns the settings as they are now; None for those this backend does not have."""

    def counters(self) -> Counters:
        """Returns what was merged and scanned so far."""

    def scanner_cpu_seconds(self) -> float | None:
        """CPU time in seconds that the scanner has used since it started; None when nobody can say."""

    def scanner_waited_seconds(self) -> float | None:
        """Seconds for which the scanner wanted a CPU and had none; None when nobody can say."""

    def write(self, write: Write) -> WriteResult:
        """Set one knob and read it back; returns within a second whatever the scanner is doing."""

    def unmerge_seconds(self) -> float:
        """CPU seconds of a run=2 on its way, which grow unless it is stuck; 0 where the counters fall by themselves.

        ksmd's counters fall only when it is done with a whole guest.
        """

    def abort(self) -> None:
        """Cuts a run=2 short that has not ended, where it can be; what was unmerged stays so."""

    def close(self) -> None:
        """Closes what the backend has open; merged memory stays merged."""
