"""Guests of the bench: workload processes that everybody who goes by names takes for QEMU."""

import json
import os
import select
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, Literal, Self, TypeAlias

import numpy as np

from ksmtuned_py.cli.workload import PAGE_BYTES, READY_SECONDS, Mix, Workload, WorkloadFailed, command
from tests.support.debian import CACHE

ROOT = Path(__file__).parent.parent
QEMU = "qemu-system-x86_64"
COMM = QEMU[:15]  # TASK_COMM_LEN, linux/sched.h
Task: TypeAlias = Literal["calm", "busy", "probe"]
"""A calm guest does little, a busy one reads its memory all the time, and a probe measures it all the time."""


class Guest(Workload):
    """A workload process in QEMU's clothes, whose memory is in small pages: the kernel had no huge one to split."""

    def __init__(self, name: str, mix: Mix) -> None:
        self.name = name
        self.mix = mix
        self._process = as_qemu(command(name, mix, COMM)[1:])

    def freed_bytes(self) -> int:
        """Returns what splits of huge pages freed."""
        return 0

    def go(self) -> None:
        """Begins to work: it did so from its start on."""

    def report(self, rounds: int) -> dict[str, Any] | None:  # noqa: ARG002 - as a guest at work has it
        """Returns what it is like to be this guest: it cannot say."""
        return None


class WorkingGuest(Guest):
    """A guest at work with memory as QEMU's (bench/guestatwork.py)."""

    def __init__(self, name: str, mix: Mix, *, layout: str, task: Task) -> None:
        self.name = name
        self.mix = mix
        self._whole_bytes = 0
        options = [f"--{key.replace('_', '-')}={value}" for key, value in asdict(mix).items() if value]
        program = ["-m", "bench.guestatwork", "-name", f"guest={name}", f"--layout={layout}", f"--task={task}"]
        self._process = as_qemu([*program, *options])

    def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> Self:
        """Wait until all its memory is filled; raises WorkloadFailed."""
        self._whole_bytes = self._expect("ready", timeout_seconds)
        return self

    def freed_bytes(self) -> int:
        """Returns what splits of huge pages freed: zero pages then go to the zero page, in no counter of KSM."""
        resident = resident_bytes(self.pid)
        return max(0, self._whole_bytes - resident) if resident else 0

    def go(self) -> None:
        """Begins to work, and to count its work."""
        self._say("go")

    def report(self, rounds: int) -> dict[str, Any] | None:
        """Returns what it is like to be this guest; raises WorkloadFailed."""
        self._say(f"report {rounds}")
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], READY_SECONDS)[0]:
            raise WorkloadFailed(self.name, f"no report within {READY_SECONDS:g} s")
        found: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        return found or None


def resident_bytes(pid: int) -> int:
    """Returns the memory that a process has; 0 when it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


def as_qemu(arguments: Sequence[str]) -> Popen[bytes]:
    """Starts Python with these arguments, named as QEMU from its first moment on.

    Managers look for the process name (a link to Python has it at exec), or, like Debian's ksmtuned, for the command
    line `^qemu-system.*-enable-kvm`. Python takes any word after -X, and ignores those it does not know. It is not the
    virtual environment's Python, so guests at work are told where that has numpy.
    """
    link = under_qemus_name(Path(sys.executable).resolve())
    libraries = Path(np.__file__).parent.parent
    paths = {"PATH": f"{link.parent}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{libraries}"}
    words = [QEMU, "-X", "-enable-kvm", *arguments]
    environment = {**os.environ, **paths, "OPENBLAS_NUM_THREADS": "1"}
    return Popen(words, executable=link, env=environment, stdin=PIPE, stdout=PIPE)


@cache
def under_qemus_name(program: Path) -> Path:
    """Returns a link to the program that is called like QEMU."""
    link = CACHE / "bench" / program.name / QEMU
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(program)
    return link
