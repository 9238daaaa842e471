"""Tells everybody of a tick in one call."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ksmtuned_py.model import HugeBack
from ksmtuned_py.model.record import Priority, Record
from ksmtuned_py.publish import capacityfile, statusfile
from ksmtuned_py.publish.capacity import CapacityWatch
from ksmtuned_py.publish.decided import Change, changes_after
from ksmtuned_py.publish.history import History
from ksmtuned_py.publish.journal import Journal
from ksmtuned_py.publish.metrics import Metrics
from ksmtuned_py.publish.notify import Notifier
from ksmtuned_py.publish.rows import Standing, Told
from ksmtuned_py.publish.totals import Totals
from ksmtuned_py.publish.words import status_line
from ksmtuned_py.report import Report
from ksmtuned_py.units import human_seconds

GRACE_SECONDS = 15.0
"""The lateness of a tick from which on /healthz tells of it. systemd's watchdog gives us the same time."""


class Publisher:
    """Gives each report to the metrics, the status file, the journal and systemd. None that fails stops a tick."""

    def __init__(self, metrics: Metrics, journal: Journal, notifier: Notifier, status_path: Path | None = None) -> None:
        """Without `status_path` no status file is written, because another daemon may have one."""
        self.metrics = metrics
        self.journal = journal
        self.notifier = notifier
        self._status_path = status_path
        self._capacity = CapacityWatch(status_path.with_name(capacityfile.NAME) if status_path else None)
        self.totals = Totals()
        self._standing = Standing()
        self.history = History()
        self.status: bytes | None = None
        """The text of the status file; None before the first tick."""
        self._decisions: tuple[Change, ...] = ()
        self._report: Report | None = None
        self._due_seconds: float | None = None
        self._failure = ""

    def publish(self, report: Report) -> None:
        """Tell everybody of a completed tick."""
        self._report = report
        self._due_seconds = time.monotonic() + report.decision.next_tick_seconds
        self.totals = replace(self.totals.after(report), capacity=self._capacity.consider(report.snapshot))
        self._decisions = changes_after(self._decisions, report)
        self.history.add(Told(report, self.totals))
        self._try(lambda: self.journal.publish(report, self.totals))
        self._show(report)
        self.notifier.status(status_line(report, self.totals))
        self.notifier.watchdog()  # only here, so that a daemon whose ticks do not complete is restarted

    def failed_tick(self, error: Exception) -> None:
        """Tell of a tick that raised. The last good report stays shown, and the error is counted."""
        self.totals = self.totals.after_error("tick", f"{type(error).__name__}: {error}")
        self._try(lambda: self.journal.failed_tick(error))
        if self._report:
            self._show(self._report)

    def note(self, huge_back: HugeBack) -> None:
        """Show from the next tick on what was given back of huge pages."""
        self.totals = replace(self.totals, huge_back=huge_back)

    def stand(self, standing: Standing) -> None:
        """Show from the next tick on what holds from now on."""
        self._standing = standing

    def tell(self, record: Record) -> None:
        """Write one record to the journal alone, from any thread. Where it cannot be written, it is lost."""
        with suppress(OSError, ValueError):
            self.journal.tell(record)

    def warn(self, sentence: str) -> None:
        """Tell the admin a sentence, as a warning, from any thread."""
        self.tell(Record(Priority.WARNING, sentence))

    def inform(self, sentence: str) -> None:
        """Tell the admin a sentence that is no warning, from any thread."""
        self.tell(Record(Priority.INFO, sentence))

    def trouble(self) -> str | None:
        """The sentence on what is wrong, for /healthz; None while ticks keep coming."""
        if self._due_seconds is None:
            return "no tick yet"
        late_seconds = time.monotonic() - self._due_seconds
        return f"the tick is {human_seconds(late_seconds)} late" if late_seconds > GRACE_SECONDS else None

    def unreadiness(self) -> str | None:
        """The sentence on what is still missing, for /readyz; None once a tick is complete and has read the knobs."""
        if self._report is None:
            return "no tick yet"
        now = self._report.snapshot
        return "the knobs cannot be read" if now.backend != "none" and now.knobs.run is None else None

    def withdraw(self) -> None:
        """Remove the status file, because the daemon ends."""
        if path := self._status_path:
            self._try(lambda: statusfile.remove(path))

    def _show(self, report: Report) -> None:
        self.metrics.publish(report, self.totals, self._standing)
        if path := self._status_path:
            self._try(lambda: self._write_status(path, report))

    def _write_status(self, path: Path, report: Report) -> None:
        self.status = statusfile.status_json(statusfile.status_of(report, self.totals, self._decisions))
        statusfile.write(path, self.status)

    def _try(self, surface: Callable[[], None]) -> None:
        try:
            surface()
        except (OSError, ValueError) as error:  # a full disk, a closed stderr; text that cannot be encoded
            sentence = f"cannot publish: {error}"
            self.totals = self.totals.after_error("publish", sentence)
            if sentence != self._failure:
                self._failure = sentence
                with suppress(OSError, ValueError):
                    self.journal.tell(Record(Priority.ERROR, sentence))
