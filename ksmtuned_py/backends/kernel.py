"""The kernel's ksmd, through /sys/kernel/mm/ksm."""

import errno
import threading
from contextlib import suppress

from ksmtuned_py.backends.ksmd import KsmdThread, find_ksmd
from ksmtuned_py.backends.unmerge import Unmerging
from ksmtuned_py.door import Door
from ksmtuned_py.door.descriptors import begin
from ksmtuned_py.door.ksm import check_ksm
from ksmtuned_py.door.text import chosen
from ksmtuned_py.errors import Garbage, KsmtunedError
from ksmtuned_py.model import (
    ASIDE,
    COUNTER_NAMES,
    KHUGEPAGED_KNOBS,
    KNOB_NAMES,
    KSM_DIRECTORY,
    KSMD_CPUS,
    KSMD_NICE,
    MUTEX_KNOBS,
    THP_DIRECTORY,
    AdvisorMode,
    Counters,
    KnobName,
    Knobs,
    KnobValue,
    Run,
    Write,
    WriteResult,
    WriteStatus,
)
from ksmtuned_py.sensors.pages import page_bytes

PATHS: dict[KnobName, str] = {name: f"{KSM_DIRECTORY}/{name}" for name in KNOB_NAMES} | {
    name: f"{THP_DIRECTORY}/khugepaged/{name.removeprefix('khugepaged_')}" for name in KHUGEPAGED_KNOBS
}
"""The files of the knobs, below the root."""
SPLITTER = f"{THP_DIRECTORY}/shrink_underused"
RUN_MASK = 3
"""Leaves out the bit of run for memory hot-remove in progress (KSM_RUN_OFFLINE = 4)."""
MUTEX_PATIENCE_SECONDS = 0.1
"""A tick waits no longer for a batch's end: the next one looks again. Our own take 20 ms, 100 at high budgets, and 250
where pages are dear there."""


def parse_advisor_mode(path: str, text: str) -> AdvisorMode:
    """Returns the mode chosen in '[none] scan-time' or 'none [scan-time]'; raises Garbage for any other text."""
    match chosen(text):
        case "none" | "scan-time" as mode:
            return mode
        case _:
            raise Garbage(path, text[:60], "'[none] scan-time' or 'none [scan-time]'")


class _Pending:
    """A write that may wait for ksmd's mutex, in a thread of its own; without a thread, the caller waits for it."""

    def __init__(self, door: Door, write: Write) -> None:
        self.write = write
        self.error: OSError | None = None
        self._door = door
        self._thread = threading.Thread(target=self._run, daemon=True, name="ksm-mutex")
        if not begin(self._thread):
            self._run()

    def is_over(self, patience_seconds: float = 0.0) -> bool:
        """Whether the write has ended, or ends within the time."""
        if self._thread.is_alive():
            self._thread.join(patience_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            _put(self._door, self.write)
        except OSError as error:
            self.error = error


class KernelBackend:
    """Drives ksmd."""

    name = "kernel"

    def __init__(self, door: Door) -> None:
        check_ksm(door)
        self.page_bytes = page_bytes(door)
        self._door = door
        self._ksmd = KsmdThread(door, find_ksmd(door))
        self._has_splitter = _has_splitter(door)
        self._pending: _Pending | None = None
        self._unmerging: Unmerging | None = None

    def knobs(self) -> Knobs:
        """Returns the settable files as they are; raises Garbage or NotPermitted for one of KSM that cannot be used."""
        return Knobs.of({name: self._read(name) for name in KNOB_NAMES})

    def counters(self) -> Counters:
        """Returns the read-only files as they are; those this kernel lacks stay at their default."""
        seen = {name: self._door.read_int(f"{KSM_DIRECTORY}/{name}") for name in COUNTER_NAMES}
        return Counters(**{name: value for name, value in seen.items() if value is not None})

    def scanner_cpu_seconds(self) -> float | None:
        """ksmd's CPU time since boot in seconds, None when there is none to see."""
        return self._ksmd.cpu_seconds()

    def scanner_waited_seconds(self) -> float | None:
        """How long ksmd has waited for a CPU since boot in seconds, None when there is none to see."""
        return self._ksmd.waited_seconds()

    def write(self, write: Write) -> WriteResult:
        """Sets one knob and reads it back. Writes that wait for ksmd's mutex use a thread and may stay PENDING."""
        if write.knob == "run" and write.new == Run.UNMERGE:
            return self._unmerge(write)
        if write.knob == "run":
            self.abort()  # the child holds the mutex that this write would wait for
        if write.knob in MUTEX_KNOBS:
            return self._write_in_thread(write)
        try:
            if write.knob == KSMD_NICE:
                self._ksmd.set_nice(int(write.new))
            elif write.knob == KSMD_CPUS:
                self._ksmd.set_cpus(str(write.new))
            else:
                _put(self._door, write)
        except OSError as error:
            return _refused(write, error)
        return self._read_back(write)

    def unmerge_seconds(self) -> float:
        """CPU seconds of the child that unmerges; 0 while none does."""
        return self._unmerging.cpu_seconds if self._unmerging is not None else 0.0

    def abort(self) -> None:
        """Kills the child that unmerges; the kernel then reads run=0."""
        if self._unmerging is not None:
            self._unmerging.abort()
            self._unmerging = None

    def close(self) -> None:
        """Does nothing, because nothing stays open."""

    def _read(self, name: KnobName) -> KnobValue | None:
        if name not in ASIDE:
            return self._read_ksm(name)
        with suppress(KsmtunedError):  # what lies outside KSM keeps nobody from steering it, or from putting it back
            if name == KSMD_NICE:
                return self._ksmd.nice()
            if name == KSMD_CPUS:
                return self._ksmd.cpus()
            if name == "khugepaged_max_ptes_none" and self._has_splitter:
                return None
            return self._door.read_int(PATHS[name])
        return None

    def _read_ksm(self, name: KnobName) -> KnobValue | None:
        relative = PATHS[name]
        if name == "run":
            return (
                None if (value := self._door.read_int(relative)) is None else _run_of(self._door.path(relative), value)
            )
        if name != "advisor_mode":
            return self._door.read_int(relative)
        text = self._door.read_if_there(relative)
        return None if text is None else parse_advisor_mode(self._door.path(relative), text)

    def _read_back(self, write: Write) -> WriteResult:
        seen = self._read(write.knob)
        if seen == write.new:
            return WriteResult(write=write, status=WriteStatus.OK)
        return WriteResult(write=write, status=WriteStatus.LOST, detail=f"reads back as {seen}")

    def _unmerge(self, write: Write) -> WriteResult:
        """Unmerges in a child, which may take its time; the same write, asked for again, tells how far it is."""
        try:
            self._unmerging = self._unmerging or Unmerging(self._door)
        except OSError as failure:  # no child can be begun: descriptors or memory are short
            return _refused(write, failure)
        if self._unmerging.running:
            return WriteResult(write=write, status=WriteStatus.PENDING, detail="unmerging in a child process")
        error, self._unmerging = self._unmerging.error, None
        if error:
            return WriteResult(write=write, status=WriteStatus.REFUSED, detail=f"unmerging failed: {error}")
        return self._read_back(write)

    def _write_in_thread(self, write: Write) -> WriteResult:
        if self._pending is not None and self._pending.is_over():
            self._pending = None
        if self._pending is None:
            self._pending = _Pending(self._door, write)
        pending = self._pending
        if not pending.is_over(MUTEX_PATIENCE_SECONDS) or pending.write != write:
            return WriteResult(write=write, status=WriteStatus.PENDING, detail="ksmd holds its mutex for a long batch")
        return _refused(write, pending.error) if pending.error else self._read_back(write)


def _has_splitter(door: Door) -> bool:
    """Whether reclaim splits huge pages, anybody's, that have more than max_ptes_none zero pages (since Linux 6.12).

    With 511, as the kernel has it, it splits none; with 0 it splits all that have a single one. What is unknown counts.
    """
    try:
        text = door.read_if_there(SPLITTER)
    except KsmtunedError:
        return True
    return text is not None and text.strip() != "0"


def _run_of(path: str, value: int) -> Run:
    try:
        return Run(value & RUN_MASK)
    except ValueError as error:
        raise Garbage(path, str(value), "0, 1 or 2") from error


def _put(door: Door, write: Write) -> None:
    door.write(PATHS[write.knob], str(write.new))


_REASONS = {
    "EINVAL": "the kernel does not take this value now (is its advisor on?)",
    "EBUSY": "pages are still merged",
    "EACCES": "not permitted",
    "EPERM": "not permitted",
}


def _refused(write: Write, error: OSError) -> WriteResult:
    name = errno.errorcode.get(error.errno or 0, "error")
    return WriteResult(write=write, status=WriteStatus.REFUSED, detail=f"{name}: {_REASONS.get(name, error.strerror)}")
