"""Keeps the running daemon's record of what memory is wanted for, and asks now and then how many more guests fit."""

from contextlib import suppress
from pathlib import Path
from threading import Thread

from ksmtuned_py.door.descriptors import begin
from ksmtuned_py.errors import Unreadable
from ksmtuned_py.model import Snapshot
from ksmtuned_py.policy.capacity import Outlook, median_guest, missing, outlook
from ksmtuned_py.policy.demand import DemandRecord
from ksmtuned_py.publish import capacityfile

EVERY_SECONDS = 600.0
"""Between two answers. One takes about a second of CPU, on a thread of its own."""
RISK = 0.01


class CapacityWatch:
    """Takes in each look at the host. A tick only adds a moment to the record, and nobody waits for an answer."""

    def __init__(self, path: Path | None) -> None:
        """Go on with the record in a file, where there is one that can be read. Without a path do nothing."""
        self.answer: Outlook | None = None
        self._path = path
        self._record = DemandRecord()
        self._thread: Thread | None = None
        self._due_seconds = float("-inf")
        with suppress(Unreadable):  # six hours later there is an answer again
            self._record = capacityfile.read(path) if path else DemandRecord()

    def consider(self, now: Snapshot) -> Outlook | None:
        """Take in one more look, and return the last answer; None as long as there is none."""
        if self._path is None:
            return None
        self._record.look(now)
        is_due = now.clock.monotonic_seconds >= self._due_seconds
        if is_due and not (self._thread and self._thread.is_alive()):
            self._due_seconds = now.clock.monotonic_seconds + EVERY_SECONDS
            record = DemandRecord(self._record.step_seconds, self._record.moments.copy())
            self._thread = Thread(target=self._ask, args=(record, now, self._path), name="capacity", daemon=True)
            begin(self._thread)
        return self.answer

    def _ask(self, record: DemandRecord, now: Snapshot, path: Path) -> None:
        like = median_guest(now)
        self.answer = outlook(record, now, like, RISK) if like and not missing(record) else None
        with suppress(OSError):  # a full disk: the next time, or never, which only a restart would notice
            capacityfile.write(path, record)
