"""The scan backend as the control loop sees it. It has ksmd's knobs and counters; a worker process does the work."""

import time
from collections.abc import Iterable
from dataclasses import asdict, replace

from ksmtuned_py.backends.scanlink import Wanted, WorkerLink, WorkerPatience, key_of
from ksmtuned_py.config import InForce
from ksmtuned_py.door import Door
from ksmtuned_py.model import Counters, Guest, GuestKey, HugeBack, Knobs, Write, WriteResult, WriteStatus
from ksmtuned_py.scanner.channel import Message
from ksmtuned_py.scanner.choice import target_of
from ksmtuned_py.scanner.mark import NOBODY
from ksmtuned_py.scanner.sentences import guest_sentences
from ksmtuned_py.scanner.target import DEFAULT_KNOBS
from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES

_UNMERGE = 2
_MOST = {"run": _UNMERGE, "smart_scan": 1}
_U32_MAX = 2**32 - 1
_ANSWER_SECONDS = 0.8
_STEP_SECONDS = 0.05
"""A status older than this is asked for anew, and an answer is waited for as long."""
_HUNG_SECONDS = 600.0
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 60.0


class ScanBackend:
    """Merges from user space; see docs/scan-backend.md."""

    name = "scan"
    page_bytes = OWN_PAGE_BYTES

    def __init__(self, in_force: InForce, door: Door | None = None, patience: WorkerPatience | None = None) -> None:
        self._in_force = in_force
        self._door = door or Door()
        self._patience = patience or WorkerPatience()
        self._wanted = Wanted()
        self._last: Message = {}
        self._before = Counters(pages_scanned=0, pages_skipped=0)
        self._cpu_before = 0.0
        self._huge_before = HugeBack()
        self.restarts = 0
        self._death = ""
        self._hung: dict[GuestKey, float] = {}
        """Guests at which a worker hung, each with the time until which no worker scans it."""
        self._given_up: dict[GuestKey, WorkerLink] = {}
        """Workers that were killed and have not ended yet, by the guest at which they hung."""
        self._wait_seconds = _FIRST_WAIT_SECONDS
        self._start_at = 0.0
        self._link: WorkerLink | None = None
        self._start()

    def watch(self, guests: Iterable[Guest]) -> None:
        """Sets the guests to scan from now on."""
        known = [target_of(guest, self._in_force.config.scan) for guest in guests]
        self._given_up = {key: link for key, link in self._given_up.items() if not link.has_ended}
        now = time.monotonic()
        self._hung = {key: until for key, until in self._hung.items() if until > now or key in self._given_up}
        targets = [target for target in known if target.key not in self._hung]
        if targets != self._wanted.targets:
            self._wanted.targets = targets
            self._wanted.version += 1
            self._ask()

    def knobs(self) -> Knobs:
        """Returns the settings that were asked for; None for those that a scanner in user space does not have."""
        self._look()
        return Knobs.of(self._wanted.knobs)

    def counters(self) -> Counters:
        """Returns the worker's latest counters; what was scanned and full_scans go on counting when a worker dies."""
        self._look()
        return self._scanned(self._counters_of_worker())

    def scanner_cpu_seconds(self) -> float | None:
        """CPU time of all workers so far; None until a new one has told of its start (a third of a second of CPU)."""
        self._look()
        told = self._status.get("cpu_seconds")
        return None if told is None else self._cpu_before + float(told)

    def scanner_waited_seconds(self) -> None:
        """Always None: the worker does not tell."""

    def write(self, write: Write) -> WriteResult:
        """Hands one knob to the worker; PENDING while it gives pages back, or does not answer within a second."""
        if write.knob not in DEFAULT_KNOBS or not isinstance(write.new, int):
            return WriteResult(write=write, status=WriteStatus.REFUSED, detail="the scan backend has no such knob")
        if not 0 <= write.new <= _MOST.get(write.knob, _U32_MAX):
            return WriteResult(write=write, status=WriteStatus.REFUSED, detail="EINVAL")
        self._wanted.knobs[write.knob] = write.new
        self._ask()
        deadline = time.monotonic() + _ANSWER_SECONDS
        while self._link and time.monotonic() < deadline:
            if self._link.status.get("knobs", {}).get(write.knob) == write.new:
                return self._taken(write)
            self._hear(_STEP_SECONDS)
        return WriteResult(write=write, status=WriteStatus.PENDING, detail="the scan worker has not answered yet")

    def _taken(self, write: Write) -> WriteResult:
        if write.knob == "run" and write.new == _UNMERGE and not self._status.get("given_back"):
            return WriteResult(write=write, status=WriteStatus.PENDING, detail="the scan worker gives pages back")
        return WriteResult(write=write, status=WriteStatus.OK)

    @property
    def problems(self) -> tuple[str, ...]:
        """Returns sentences for the admin: a worker that died, why zero pages stay, why guests are refused."""
        self._look()
        times = f"{self.restarts} time{'s' * (self.restarts > 1)}"
        found = [f"the scan worker has died {times}; last: {self._death}"] if self.restarts else []
        found += [self._link.problem] if self._link and self._link.problem else []
        found += [f"zero pages stay: {reason}" for reason in [self._status.get("refusal")] if reason]
        found += [reason for reason in [self._status.get("merge_refusal")] if reason]
        return (*found, *guest_sentences(self._told()))

    @property
    def guests(self) -> list[Message]:
        """Returns how many pages of each guest are saved and could be saved, by the worker's latest status."""
        self._look()
        return self._told()

    @property
    def refused(self) -> dict[GuestKey, str]:
        """Returns, by PID and start, why guests are left alone in whole or in part; other guests are not in it."""
        found = {key_of(one): one["refusal"] or one["rest"] for one in self._told()}
        found |= dict.fromkeys(self._hung, "the scan worker hung at it, or failed: it is left alone for some minutes")
        return {key: reason for key, reason in found.items() if reason}

    @property
    def window_milliseconds(self) -> dict[str, float]:
        """How long remapped guests were stopped at a time, in ms (p50, p99, max); empty when none was stopped."""
        self._look()
        return dict(self._status.get("window_milliseconds", {}))

    @property
    def table_bytes(self) -> int:
        """Bytes of memory that the worker's tables take."""
        return int(self._status.get("table_bytes", 0))

    @property
    def worker_pid(self) -> int:
        """The worker's process ID; 0 while there is none."""
        return self._link.pid if self._link else 0

    def huge_back(self, above_bytes: int | None) -> HugeBack:
        """Have huge pages given back that remapping has cut, while so much memory stays available; None = not now.

        Returns what all workers have given back so far.
        """
        ends = (self._wanted.whole_above_bytes is None) != (above_bytes is None)
        self._wanted.whole_above_bytes = above_bytes
        if ends:
            self._ask()
        self._look()
        return self._huge_before.plus(HugeBack(**self._status.get("huge_back", {})))

    def unmerge_seconds(self) -> float:
        """Always 0: the worker's counters themselves show how far an unmerging is."""
        return 0.0

    def abort(self) -> None:
        """Does nothing: any other write of run ends it."""

    def close(self) -> None:
        """Ends the worker; what it merged stays merged."""
        if self._link:
            self._link.close()
        self._link = None
        self._start_at = float("inf")

    @property
    def _status(self) -> Message:
        """Returns the worker's status; until a new worker speaks, what the one before has left."""
        return (self._link and self._link.status) or self._last

    def _told(self) -> list[Message]:
        known = self._link.guests if self._link else {}
        return [known[target.key] for target in self._wanted.targets if target.key in known]

    def _start(self) -> None:
        self._link = WorkerLink(self._door.root, self._in_force.config.scan, self._patience)
        self._ask()

    def _ask(self) -> None:
        if self._link:
            self._link.ask(self._wanted)

    def _look(self) -> None:
        """Asks the worker how it stands, and starts another one if it has died."""
        if not self._link and time.monotonic() >= self._start_at:
            self._start()
        self._hear()
        if self._link and self._link.status_seconds > _STEP_SECONDS:
            if not self._link.silent_seconds:
                self._ask()
            self._hear(max(0.0, _STEP_SECONDS - self._link.silent_seconds))

    def _hear(self, timeout_seconds: float = 0) -> None:
        if not self._link:
            return
        self._link.hear(timeout_seconds)
        if death := self._link.death():
            self._bury(self._link, death)

    def _bury(self, link: WorkerLink, death: str) -> None:
        link.close()
        self._death = death
        last = self._counters_of_worker()
        self._before = self._scanned(last)
        self._cpu_before += float(self._status.get("cpu_seconds", 0.0))
        self._huge_before = self._huge_before.plus(HugeBack(**self._status.get("huge_back", {})))
        # Merged pages stay merged; the dead worker's counts are in _before now.
        self._last = {"counters": asdict(replace(last, full_scans=0, pages_scanned=0, pages_skipped=0))}
        self._link = None
        self.restarts += 1
        if link.hung_at != NOBODY:
            self._hung[link.hung_at] = time.monotonic() + _HUNG_SECONDS
            self._given_up |= {} if link.has_ended else {link.hung_at: link}
        if link.lived_seconds > _LONGEST_WAIT_SECONDS:
            self._wait_seconds = _FIRST_WAIT_SECONDS
        self._start_at = time.monotonic() + self._wait_seconds
        self._wait_seconds = min(_LONGEST_WAIT_SECONDS, self._wait_seconds * 2)

    def _scanned(self, now: Counters) -> Counters:
        """Returns the counters with what earlier workers have scanned added."""
        return replace(
            now,
            full_scans=now.full_scans + self._before.full_scans,
            pages_scanned=(now.pages_scanned or 0) + (self._before.pages_scanned or 0),
            pages_skipped=(now.pages_skipped or 0) + (self._before.pages_skipped or 0),
        )

    def _counters_of_worker(self) -> Counters:
        return Counters(**self._status["counters"]) if "counters" in self._status else Counters()
