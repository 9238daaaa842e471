"""The scan worker: a process of its own, so that no scan delays the control loop. It ends when its parent does."""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtuned_py.door import Door
from ksmtuned_py.guests.cgroups import keeps_a_kill_waiting
from ksmtuned_py.model import GuestKey, Run
from ksmtuned_py.scanner.channel import Channel, Closed, Message, inherited
from ksmtuned_py.scanner.mark import Mark
from ksmtuned_py.scanner.scanner import Scanner, Watched
from ksmtuned_py.scanner.settings import ScanSettings
from ksmtuned_py.scanner.target import DEFAULT_KNOBS, Target
from ksmtuned_py.scanner.wholes import Wholes
from ksmtuned_py.sensors.status import parse_status, status_bytes
from ksmtuned_py.units import MIB

if TYPE_CHECKING:
    from ksmtuned_py.scanner.remap.share.remapper import Remapper

_NICE = 5  # as ksmd
_IDLE_SECONDS = 1.0
_TIDY_SECONDS = 5.0
"""How often it frees what nobody needs any more while nothing is scanned."""
_PROVEN = ("x86_64", "aarch64")
"""Machines, by os.uname, on which remapping was tested."""
_PAGE = 4096


class Worker:
    """Obeys the channel, and scans in between."""

    def __init__(
        self, channel: Channel, scanner: Scanner, merge_refusal: str | None = None, wholes: Wholes | None = None
    ) -> None:
        self._channel = channel
        self._scanner = scanner
        self._wholes = wholes
        self._whole_rest_seconds = 0.0
        """The rest of whoever gives huge pages back; 0 while nobody does."""
        self._merge_refusal = merge_refusal
        self._knobs = dict(DEFAULT_KNOBS)
        self._steps = scanner.steps()
        self._next_tidy = 0.0
        self._given_back = True
        self._credit = 0
        """Pages that may be scanned in this batch; below 0, it is what earlier batches have taken too much."""
        self._version = 0
        self._told: dict[GuestKey, Message] = {}
        """What the other side has been told of each guest of this version."""

    def serve(self) -> None:
        """Works until the parent has ended or closed the channel."""
        try:
            while True:
                self._obey(self._channel.receive(self._pause_seconds()))
                self._batch()
        except Closed:
            return

    def _pause_seconds(self) -> float:
        run = self._knobs["run"]
        if run == Run.UNMERGE and not self._given_back:
            return 0
        if run == Run.MERGE and self._scanner.has_work and self._knobs["pages_to_scan"]:
            return self._knobs["sleep_millisecs"] / 1000
        return self._whole_rest_seconds or _IDLE_SECONDS

    def _obey(self, messages: list[Message]) -> bool:
        """Answers the messages, and returns whether anything is to be done otherwise from now on."""
        news = False
        for message in messages:
            if "targets" in message:
                self._scanner.watch([Target(**target) for target in message["targets"]])
                self._version, self._told, news = message["version"], {}, True
                if self._wholes:
                    self._wholes.end()  # it may be over some that are not there any more, or may not be touched
            for name, value in message["knobs"].items():
                if self._knobs[name] != value:
                    self._knobs[name], news = value, True
                    self._given_back &= name != "run"
            if self._wholes:
                self._wholes.want(message["whole_above_bytes"])
        self._scanner.smart = bool(self._knobs["smart_scan"])
        if messages:
            self._tell(messages[-1]["ask"])
        return news

    def _batch(self) -> None:
        self._whole_rest_seconds = 0.0
        if self._knobs["run"] != Run.STOP and self._wholes:
            self._wholes.merged()
        if self._knobs["run"] == Run.MERGE:
            self._credit = min(self._credit, 0) + self._knobs["pages_to_scan"]
            if self._credit > 0:
                self._work(self._steps)
        elif self._knobs["run"] == Run.UNMERGE and not self._given_back:
            self._credit = sys.maxsize
            self._given_back = self._work(self._scanner.give_back())
        elif time.monotonic() >= self._next_tidy:
            self._credit = sys.maxsize
            if self._work(self._scanner.tidy()):
                self._next_tidy = time.monotonic() + _TIDY_SECONDS
            self._given_back &= not self._scanner.counters.pages_shared  # guests that have refused are tried again
        elif self._knobs["run"] == Run.STOP and self._wholes:
            self._whole_rest_seconds = self._wholes.go_on(each.target for each in self._scanner.watched.values())

    def _work(self, steps: Iterator[int]) -> bool:
        """Takes steps while its credit lasts, hearing messages after each; True when all steps are done."""
        for done in steps:
            self._credit -= done
            if self._credit <= 0 or not done or self._obey(self._channel.receive()):
                return False
        return True

    def _tell(self, question: int) -> None:
        """Answers with its status, and with what has changed of each guest since the last answer."""
        scanner = self._scanner
        now = {key: _told_of(guest) for key, guest in scanner.watched.items()}
        self._channel.send(
            {
                "ask": question,
                "version": self._version,
                "knobs": self._knobs,
                "given_back": self._given_back,
                "counters": asdict(scanner.progress()),
                "cpu_seconds": time.process_time(),
                "table_bytes": scanner.table_bytes,
                "refusal": scanner.refusal,
                "merge_refusal": self._merge_refusal,
                "window_milliseconds": scanner.window_milliseconds(),
                "huge_back": _told_of_wholes(self._wholes) if self._wholes else {},
                "all": not self._told,
                "guests": [guest for key, guest in now.items() if guest != self._told.get(key)],
            }
        )
        self._told = now


def _told_of_wholes(wholes: Wholes) -> Message:
    return {
        "given": wholes.given,
        "paid_bytes": wholes.paid_pages * _PAGE,
        "cpu_seconds": wholes.cpu_seconds,
        "problem": wholes.problem,
    }


def _told_of(guest: Watched) -> Message:
    return {
        "pid": guest.target.pid,
        "start_ticks": guest.target.start_ticks,
        "name": guest.target.name,
        "zero_pages_out": guest.zeros.out_pages,
        "saveable_pages": guest.saveable_pages,
        "rests": guest.zeros.times_alone,
        "rest": guest.zeros.reason,
        "refusal": guest.trouble or guest.refusal,
    }


def merger_for(
    settings: ScanSettings, door: Door, stand: Callable[[float], None] = lambda _: None
) -> tuple["Remapper | None", str | None]:
    """Returns who shares equal pages in this mode, or why nobody does; `stand` is told when a guest stands still."""
    if settings.reclaim != "remap":
        return None, None
    if os.uname().machine not in _PROVEN or os.sysconf("SC_PAGESIZE") != _PAGE:
        return None, f"remap is for x86-64 and aarch64 with pages of 4 KiB only, and this is {os.uname().machine}"
    if not _is_of_our_namespace(door):
        return None, "remap needs the /proc of the PID namespace that the daemon runs in"
    if keeps_a_kill_waiting(door.read_if_there("proc/self/cgroup") or ""):
        return None, "remap is not for a daemon in a freezer of cgroup v1: frozen, it would hold up who stands still"
    from ksmtuned_py.scanner.remap.share.remapper import Remapper
    from ksmtuned_py.scanner.remap.stop.hurry import end_if_kept

    end_if_kept(stand)
    return Remapper(door, settings), None


def main(descriptor: int, mark: Mark, root: str, settings: ScanSettings) -> None:
    """Runs one worker on the inherited end of a channel."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is the parent's business
    with suppress(PermissionError):  # the unit allows it only with its drop-in for this backend
        os.nice(_NICE)
    limit = settings.worker_memory_mib * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    door = Door(root)
    merger, refusal = merger_for(settings, door, mark.stand)
    scanner = Scanner(door, settings, merger, max(0, limit - _own_bytes()), mark.set)
    wholes = Wholes(door, merger, scanner.at) if merger else None
    Worker(inherited(descriptor), scanner, refusal, wholes).serve()


def _is_of_our_namespace(door: Door) -> bool:
    """Whether the numbers in /proc are those by which we trace, and no other processes'."""
    with suppress(OSError):
        return Path(door.path("proc/thread-self")).readlink().parts[0] == str(os.getpid())
    return False


def _own_bytes() -> int:
    """What RLIMIT_DATA counts of this process before any scan, in bytes: the interpreter and its libraries."""
    return status_bytes(parse_status(Door().read("proc/self/status")), "VmData") or 0


if __name__ == "__main__":
    main(int(sys.argv[1]), Mark(int(sys.argv[2])), sys.argv[3], ScanSettings(**json.loads(sys.argv[4])))
