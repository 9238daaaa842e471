"""Writes the journal: one record for each change, a summary every hour, and every tick for whoever debugs."""

import errno
import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.model import WriteResult, WriteStatus
from ksmtuned_py.model.record import Field, Priority, Record
from ksmtuned_py.publish.climbing import PASSES
from ksmtuned_py.publish.totals import Totals
from ksmtuned_py.publish.words import FAILED, foreign_sentence, status_line, write_sentence
from ksmtuned_py.report import Report
from ksmtuned_py.units import human_seconds

SUMMARY_SECONDS = 3600.0
IDENTIFIER = "ksmtuned-py"
RATE = frozenset({"pages_to_scan", "sleep_millisecs"})
"""Knobs that follow the cost of a page from tick to tick. A change of them is told only with one of mode or rule."""


Sink = Callable[[Record], None]


class Journal:
    """Remembers what was told last, and tells what is new."""

    def __init__(self, sink: Sink | None = None, *, debug: bool = False) -> None:
        self._sink = sink or default_sink()
        self._debug = debug
        self._told: Report | None = None
        self._error = ""
        self._summary = Totals()
        self._summary_seconds: float | None = None

    def publish(self, report: Report, totals: Totals) -> None:
        """Tell what this tick changed; raises OSError when the journal cannot be written."""
        for record in tick_records(self._told, report):
            self.tell(record)
        self._told, self._error = report, ""
        self._summarize(report, totals)

    def failed_tick(self, error: Exception) -> None:
        """Tell of a tick that raised. The same error again is told only when debugging."""
        sentence = f"tick failed: {type(error).__name__}: {error}"
        priority = Priority.DEBUG if sentence == self._error else Priority.ERROR
        self._error = sentence
        if isinstance(error, KsmtunedError):
            self.tell(Record(priority, sentence))
        else:  # a bug, whose place has to be told
            trace = "".join(traceback.format_exception(error))
            self.tell(Record(priority, sentence, {"KSMTUNED_TRACEBACK": trace}, _place(error)))

    def tell(self, record: Record) -> None:
        """Write one record. Records for debugging are written only when asked for."""
        if self._debug or record.priority < Priority.DEBUG:
            self._sink(record)

    def _summarize(self, report: Report, totals: Totals) -> None:
        now_seconds = report.snapshot.clock.monotonic_seconds
        if self._summary_seconds is not None:
            elapsed_seconds = now_seconds - self._summary_seconds
            if elapsed_seconds < SUMMARY_SECONDS:
                return
            self.tell(summary_record(report, self._summary, totals, elapsed_seconds))
        self._summary, self._summary_seconds = totals, now_seconds


def tick_records(before: Report | None, report: Report) -> Iterator[Record]:
    """The records on what changed between two ticks."""
    fields = _fields(report)
    writes = [write_sentence(result) for result in report.outcome.results]
    context = "; ".join([f"{report.decision.mode}, {report.decision.rule}", *writes])
    yield Record(Priority.INFO if _is_news(before, report) else Priority.DEBUG, report.decision.reason, fields, context)
    for sentence in _warnings(report):
        if before is None or sentence not in _warnings(before):
            yield Record(Priority.WARNING, sentence, fields)


def summary_record(report: Report, before: Totals, now: Totals, elapsed_seconds: float) -> Record:
    """The record on how things stand, and on what was done since the last summary."""
    passes = (now.total(PASSES) or 0) - (before.total(PASSES) or 0)
    done = f"{now.ticks - before.ticks} ticks, {passes:.0f} passes in {human_seconds(elapsed_seconds)}"
    return Record(Priority.INFO, f"{status_line(report, now)}; {done}", _fields(report))


def _is_news(before: Report | None, report: Report) -> bool:
    if before is None:
        return True
    results, told = _switching(report), _switching(before)
    # A write that the kernel took is told each time; one that is repeated without effect (dry, pending) only once.
    if any(result.status is WriteStatus.OK for result in results) or (results and results != told):
        return True
    return (before.decision.mode, before.decision.rule) != (report.decision.mode, report.decision.rule)


def _switching(report: Report) -> list[WriteResult]:
    return [result for result in report.outcome.results if result.write.knob not in RATE]


def _warnings(report: Report) -> list[str]:
    snapshot = report.snapshot
    return [
        *(foreign_sentence(write, snapshot) for write in snapshot.foreign),
        *(write_sentence(result) for result in report.outcome.results if result.status in FAILED),
        *snapshot.problems,
    ]


def _fields(report: Report) -> dict[str, Field]:
    snapshot, decision = report.snapshot, report.decision
    fields: dict[str, Field] = {
        "KSMTUNED_MODE": decision.mode.value,
        "KSMTUNED_RULE": decision.rule,
        "KSMTUNED_BACKEND": snapshot.backend,
        "KSMTUNED_SAVED_BYTES": snapshot.saved_bytes,
        "KSMTUNED_PROFIT_BYTES": snapshot.profit_bytes,
        "KSMTUNED_AVAILABLE_BYTES": snapshot.memory.available_bytes,
        "KSMTUNED_NEXT_TICK_SECONDS": decision.next_tick_seconds,
    }
    for result in report.outcome.results:
        knob = f"KSMTUNED_KNOB_{result.write.knob.upper()}"
        fields.setdefault(f"{knob}_OLD", result.write.old)
        fields |= {f"{knob}_NEW": result.write.new, f"{knob}_STATUS": result.status.value}
    return fields


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""


def default_sink() -> Sink:
    """The place for records: the journal where stderr is connected to it, else lines on stderr."""
    if not stderr_is_journal():
        return lambda record: _print(f"{time.strftime('%H:%M:%S')} {plain_line(record)}")
    try:
        from systemd.journal import send
    except ImportError:
        return lambda record: _print(f"<{record.priority.value}>{plain_line(record)}")  # sd-daemon(3)

    def send_record(record: Record) -> None:
        fields = {name: str(value) for name, value in record.fields.items()}
        send(record.message, PRIORITY=record.priority.value, SYSLOG_IDENTIFIER=IDENTIFIER, **fields)

    return send_record


def stderr_is_journal() -> bool:
    """Whether stderr is connected to the journal (JOURNAL_STREAM, systemd.exec(5))."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def plain_line(record: Record) -> str:
    """A record as one line."""
    context = f" [{record.context}]" if record.context else ""
    return f"{record.priority.name.lower()}: {record.message}{context}".replace("\n", " ")


def _print(line: str) -> None:
    """Write a line to stderr; raises OSError, or BlockingIOError when that would wait for the reader."""
    if sys.stderr is None:  # closed when we began, so its number may be another file's by now
        return
    stderr = select.poll()
    stderr.register(2, select.POLLOUT)
    if not stderr.poll(0):
        raise BlockingIOError(errno.EAGAIN, "nobody reads standard error")
    text = line.encode("utf-8", "backslashreplace")
    os.write(2, text[: select.PIPE_BUF - 1] + b"\n")  # a pipe that polls as writable takes so much without waiting
