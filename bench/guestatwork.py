"""A guest at work, as a process: memory as QEMU's, part of it read and part of it written, measured from within.

It speaks lines as a workload process does (ksmtuned_py.cli.workload), and ends when its standard input does.
"""

import argparse
import ctypes
import json
import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import numpy as np

from bench.contents import GuestMemory, Layout
from bench.guests import COMM, Task, resident_bytes
from bench.meter import BATCH, Meter, Reader
from ksmtuned_py.cli.workload import PAGE_BYTES, Mix
from ksmtuned_py.door import Door
from ksmtuned_py.sensors.memory import read_memory
from ksmtuned_py.units import MIB

IDLE_SECONDS = 0.1
"""The time between two batches of reads of a guest that has little to do."""
REFERENCE_BYTES = 512 * MIB
"""The most that a guest takes for a moment, to be measured at the end of a run."""
SPARE_BYTES = 768 * MIB
"""What stays available then, twice what ballast gives up at; where there is less, nothing is measured."""
PR_SET_NAME = 15  # linux/prctl.h


class Working:
    """The guest from within."""

    def __init__(self, name: str, mix: Mix, layout: Layout, task: Task) -> None:
        self._memory = GuestMemory(name, mix, layout)
        self._task = task
        self._rate = mix.changes_per_second
        self._meter = Meter(self._memory, self._memory.size_bytes) if task == "probe" else None
        blocks = np.arange(0, self._memory.size_bytes // (PAGE_BYTES * 512), 2)
        self._reader = Reader(self._memory, blocks)  # every second huge page is read, the others are not
        self._reads = 0
        self._at_work = False
        self._begun, self._changed = time.monotonic(), 0
        self._had_before, self._waited_before = scheduled_ns()

    def serve(self) -> None:
        """Answers until standard input ends, and works meanwhile."""
        whole = resident_bytes(os.getpid()) - self._memory.in_memory("Rss") + self._memory.size_bytes
        self._answer(f"ready {whole}")
        while True:
            hard = self._at_work and self._task != "calm"
            if select.select([0], [], [], 0 if hard else IDLE_SECONDS)[0]:
                lines = os.read(0, 4096)
                if not lines:
                    return
                for line in lines.splitlines():
                    self._obey(line.split())
            self._work()

    def _obey(self, words: list[bytes]) -> None:
        match words:
            case [b"go"]:
                self._at_work, self._reads = True, 0
                self._begun, self._changed = time.monotonic(), 0
                self._had_before, self._waited_before = scheduled_ns()
            case [b"spoil", pages]:
                self._answer(f"spoiled {self._memory.spoil(int(pages))}")
            case [b"report", rounds]:
                self._answer(json.dumps(self._report(int(rounds))))

    def _work(self) -> None:
        if self._meter and self._at_work:
            self._meter.round()
        self._reader.read()
        self._reads += BATCH
        due = int((time.monotonic() - self._begun) * self._rate) - self._changed
        self._memory.rewrite(due)
        self._changed += due

    def _report(self, rounds: int) -> dict[str, object]:
        """Returns what it is like to be this guest; measures so many rounds first, where it has no meter yet."""
        seconds, (had, waited) = time.monotonic() - self._begun, scheduled_ns()
        report: dict[str, object] = {
            "memory_bytes": self._memory.size_bytes,
            "huge_bytes": self._memory.in_memory("AnonHugePages"),
            "reads_per_second": self._reads / seconds,
            "cpu_share": (had - self._had_before) / 1e9 / seconds,
            "waited_share": (waited - self._waited_before) / 1e9 / seconds,
        }
        meter = self._meter or self._measured(rounds)
        return report | ({"speeds": meter.speeds, "waits": meter.waits.quantiles()} if meter else {})

    def _measured(self, rounds: int) -> Meter | None:
        size = min(REFERENCE_BYTES, self._memory.size_bytes)
        if not rounds or read_memory(Door()).available_bytes < size + SPARE_BYTES:
            return None
        meter = Meter(self._memory, size)
        for _ in range(rounds):
            meter.round()
        return meter

    def _answer(self, line: str) -> None:
        os.write(1, f"{line}\n".encode())


def scheduled_ns() -> tuple[int, int]:
    """Returns for how long this process had a core, and was ready to run and had none, since its start."""
    had, waited, _ = Path("/proc/self/schedstat").read_text().split()
    return int(had), int(waited)


def main() -> None:
    """One guest: fills its memory, says 'ready', and serves its parent."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-name", metavar="guest=NAME", help="also to be seen in the process list")
    parser.add_argument("--layout", choices=get_args(Layout), default="dense")
    parser.add_argument("--task", choices=get_args(Task), default="calm")
    for key, default in asdict(Mix()).items():
        parser.add_argument(f"--{key.replace('_', '-')}", type=type(default), default=default)
    options = vars(parser.parse_args())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is the parent's business
    ctypes.CDLL(None).prctl(PR_SET_NAME, COMM.encode())
    mix = Mix(**{key: options[key] for key in asdict(Mix())})
    with suppress(BrokenPipeError):
        Working(options["name"], mix, options["layout"], options["task"]).serve()


if __name__ == "__main__":
    main()
