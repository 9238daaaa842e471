"""The scan backend as the control loop sees it: ksmd's knobs and counters; the work is done by a worker process."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, replace

from ksmtuned_py.backends.scan.channel import Channel, Closed, Message, pair
from ksmtuned_py.backends.scan.choice import target_of
from ksmtuned_py.backends.scan.target import DEFAULT_KNOBS, Target
from ksmtuned_py.config import InForce, Scan
from ksmtuned_py.door import Door
from ksmtuned_py.model import Counters, Guest, Knobs, Write, WriteResult, WriteStatus
from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES

_UNMERGE = 2
_MOST = {"run": _UNMERGE, "smart_scan": 1}
_U32_MAX = 2**32 - 1
_ANSWER_SECONDS = 0.8
_CLOSE_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 60.0


class ScanBackend:
    """Merges from user space; see docs/scan-backend.md."""

    name = "scan"
    page_bytes = OWN_PAGE_BYTES

    def __init__(self, in_force: InForce, door: Door | None = None) -> None:
        self._in_force = in_force
        self._door = door or Door()
        self._knobs = dict(DEFAULT_KNOBS)
        self._targets: list[Target] = []
        self._status: Message = {}
        self._before = Counters(pages_scanned=0, pages_skipped=0)
        self._cpu_before = 0.0
        self.restarts = 0
        self._death = ""
        self._wait_seconds = 0.5
        self._start_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def watch(self, guests: Iterable[Guest]) -> None:
        """These are the guests to scan from now on."""
        targets = [target_of(guest, self._in_force.config.scan) for guest in guests]
        if targets != self._targets:
            self._targets = targets
            self._send(self._targets_message())

    def knobs(self) -> Knobs:
        """The settings that were asked for; those a user-space scanner has."""
        self._look()
        return Knobs(**self._knobs)  # type: ignore[arg-type]  # the keys are fields, the values are int

    def counters(self) -> Counters:
        """As the worker told last; scanning figures go on counting over a worker's death, as full_scans does."""
        self._look()
        return self._scanned(self._counters_of_worker())

    def scanner_cpu_seconds(self) -> float | None:
        """Of all workers so far; None until a new one has told of its start, which takes half a second of CPU."""
        self._look()
        told = self._status.get("cpu_seconds")
        return None if told is None else self._cpu_before + float(told)

    def write(self, write: Write) -> WriteResult:
        """Hands one knob to the worker; PENDING when it has not answered within a second, or still gives pages back."""
        if write.knob not in DEFAULT_KNOBS or not isinstance(write.new, int):
            return WriteResult(write=write, status=WriteStatus.REFUSED, detail="the scan backend has no such knob")
        if not 0 <= write.new <= _MOST.get(write.knob, _U32_MAX):
            return WriteResult(write=write, status=WriteStatus.REFUSED, detail="EINVAL")
        self._look()
        if (
            write.knob != "run" or write.new != _UNMERGE or self._told(write.knob) != write.new
        ):  # told again, it would begin anew
            self._knobs[write.knob] = write.new
            self._send({"knobs": {write.knob: write.new}})
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            if self._told(write.knob) == write.new:
                return self._taken(write)
            self._look(0.05)
        return WriteResult(write=write, status=WriteStatus.PENDING, detail="the scan worker has not answered yet")

    def _told(self, knob: str) -> int | None:
        """A knob as the worker has it."""
        value: int | None = self._status.get("knobs", {}).get(knob)
        return value

    def _taken(self, write: Write) -> WriteResult:
        if write.knob == "run" and write.new == _UNMERGE and not self._status.get("given_back"):
            return WriteResult(write=write, status=WriteStatus.PENDING, detail="the scan worker gives pages back")
        return WriteResult(write=write, status=WriteStatus.OK)

    @property
    def problems(self) -> tuple[str, ...]:
        """What the admin should know, as sentences: a worker that died, why zero pages stay, why guests are refused."""
        found = [f"the scan worker has died {self.restarts} times; last: {self._death}"] if self.restarts else []
        found += [f"zero pages stay: {reason}" for reason in [self._status.get("refusal")] if reason]
        found += [reason for reason in [self._status.get("merge_refusal")] if reason]
        for guest in self._status.get("guests", []):
            found += [f"{guest['name']}: {guest[key]}" for key in ("rest", "refusal") if guest[key]]
        return tuple(found)

    @property
    def guests(self) -> list[Message]:
        """For each guest what is saved and what could be, in pages, as the worker told last."""
        self._look()
        return list(self._status.get("guests", []))

    @property
    def window_milliseconds(self) -> dict[str, float]:
        """How long remapped guests were stopped at a time: p50, p99, max; empty when none was."""
        return dict(self._status.get("window_milliseconds", {}))

    @property
    def table_bytes(self) -> int:
        """Memory of the worker's tables."""
        return int(self._status.get("table_bytes", 0))

    @property
    def worker_pid(self) -> int:
        """The worker's process ID; 0 while there is none."""
        return self._process.pid if self._process else 0

    def unmerge_seconds(self) -> float:
        """The worker tells how far it is by its counters."""
        return 0.0

    def close(self) -> None:
        """Ends the worker; what it merged stays merged."""
        self._channel.close()
        if self._process:
            try:
                self._process.wait(_CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        self._start_at = float("inf")

    def _start(self) -> None:
        ours, theirs = pair()
        self._process = _spawn(theirs, self._door.root, self._in_force.config.scan)
        self._channel = Channel(ours)
        self._send({"knobs": self._knobs})
        self._send(self._targets_message())

    def _look(self, timeout_seconds: float = 0) -> None:
        """Takes in what the worker has said, and starts another one where it has died."""
        if not self._process:
            if time.monotonic() >= self._start_at:
                self._start()
            return
        try:
            for message in self._channel.receive(timeout_seconds):
                self._status = message
        except Closed:
            self._bury(self._process)

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        code = process.wait()
        self._death = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._channel.close()
        last = self._counters_of_worker()
        self._before = self._scanned(last)
        self._cpu_before += float(self._status.get("cpu_seconds", 0.0))
        # What is merged stays merged; what was counted is in _before now.
        self._status = {"counters": asdict(replace(last, full_scans=0, pages_scanned=0, pages_skipped=0))}
        self._process = None
        self.restarts += 1
        self._start_at = time.monotonic() + self._wait_seconds
        self._wait_seconds = min(_LONGEST_WAIT_SECONDS, self._wait_seconds * 2)

    def _scanned(self, now: Counters) -> Counters:
        """With what the workers before this one have scanned."""
        return replace(
            now,
            full_scans=now.full_scans + self._before.full_scans,
            pages_scanned=(now.pages_scanned or 0) + (self._before.pages_scanned or 0),
            pages_skipped=(now.pages_skipped or 0) + (self._before.pages_skipped or 0),
        )

    def _counters_of_worker(self) -> Counters:
        return Counters(**self._status["counters"]) if "counters" in self._status else Counters()

    def _send(self, message: Message) -> None:
        if self._process:
            try:
                self._channel.send(message)
            except Closed:
                self._bury(self._process)

    def _targets_message(self) -> Message:
        return {"targets": [asdict(target) for target in self._targets]}


def _spawn(end: socket.socket, root: str, settings: Scan) -> subprocess.Popen[bytes]:
    with end:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "ksmtuned_py.backends.scan.worker",
                str(end.fileno()),
                root,
                settings.model_dump_json(),
            ],
            pass_fds=[end.fileno()],
            stdin=subprocess.DEVNULL,
        )
