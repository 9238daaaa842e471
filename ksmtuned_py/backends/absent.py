"""Stands in for a backend on a host where nothing merges, so that the rest of it is watched all the same."""

from ksmtuned_py.model import Counters, Knobs, Write, WriteResult, WriteStatus


class AbsentBackend:
    """Has no knob, counts nothing, and refuses every write."""

    name = "none"

    def __init__(self, page_bytes: int) -> None:
        self.page_bytes = page_bytes

    def knobs(self) -> Knobs:
        """Returns no knob at all."""
        return Knobs()

    def counters(self) -> Counters:
        """Returns that nothing is merged."""
        return Counters()

    def scanner_cpu_seconds(self) -> None:
        """Always None: nobody scans."""

    def scanner_waited_seconds(self) -> None:
        """None, because there is no scanner."""

    def write(self, write: Write) -> WriteResult:
        """Refuses the write."""
        return WriteResult(write=write, status=WriteStatus.REFUSED, detail="nothing merges here")

    def unmerge_seconds(self) -> float:
        """Always 0: nothing is merged."""
        return 0.0

    def abort(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing, because nothing is open."""
