"""Real processes in tests: waiting with a deadline, reading output while a program runs, and leaving none behind."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self, TypeVar

import psutil

T = TypeVar("T")
ENDING_SECONDS = 2.0
"""How long a process that was told to end may take until it is gone."""
PASSING = """
import fcntl, os, sys
end = sys.argv.index("--")
for place, number in enumerate([fcntl.fcntl(int(each), fcntl.F_DUPFD, 100) for each in sys.argv[1:end]], 3):
    os.dup2(number, place)
environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(end - 1), **os.environ}
os.execvpe(sys.argv[end + 1], sys.argv[end + 1:], environment)
"""
"""Becomes another program that has the sockets of the first arguments, and is told of them."""
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def wait_for(
    look: Callable[[], T], seconds: float, what: str, *, every_seconds: float = 0.02, said: Callable[[], str] = str
) -> T:
    """Looks until it sees something true and returns that.

    An AssertionError names what never came, what was seen last, and what a program has `said` until then.
    """
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s; seen last: {seen!r}\n{said()}"
        time.sleep(every_seconds)
    return seen


class HasDescriptor(Protocol):
    """A socket, as a rule."""

    def fileno(self) -> int:
        """Its descriptor."""


class Program:
    """A program under test, in a with block: its output goes to files, so that nobody has to drain a pipe."""

    def __init__(
        self,
        arguments: Sequence[str],
        directory: Path,
        environment: Mapping[str, str] | None = None,
        sockets: Sequence[HasDescriptor] = (),
    ) -> None:
        """Starts it, with sockets at descriptor 3 and those behind it, as systemd passes them."""
        if sockets:
            arguments = [sys.executable, "-c", PASSING, *(str(each.fileno()) for each in sockets), "--", *arguments]
        self.stdout = directory / "stdout"
        self.stderr = directory / "stderr"
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **(environment or {})},
                pass_fds=[each.fileno() for each in sockets],
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self) -> str:
        """Returns all it has said so far, on both streams."""
        return self.stdout.read_text() + self.stderr.read_text()

    def wait_output(self, text: str, seconds: float = 10.0) -> str:
        """Waits until it has said the text and returns all it said; fails at once when it ends without."""

        def look() -> bool:
            ended = self.process.poll() is not None
            said = text in self.output()
            assert said or not ended, f"ended with {self.process.returncode} without {text!r}:\n{self.output()}"
            return said

        wait_for(look, seconds, f"{text!r} in the output of {self.process.args!r}")
        return self.output()

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 10.0) -> int:
        """Sends the signal and returns the exit code; killed and an error when it stays."""
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float = 10.0) -> int:
        """Waits for it to end by itself within the time; returns the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds:g} s:\n{self.output()}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def adopt_orphans() -> None:
    """Makes this process the parent of every orphan below it, so that no grandchild can hide from `children`."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> set[psutil.Process]:
    """Returns every process below this one that runs, at any depth."""
    if _has_none():
        return set()
    return {child for child in psutil.Process().children(recursive=True) if _runs(child)}


def _has_none() -> bool:
    """Whether this process certainly has no child. Most tests have none, and else every process has to be looked at."""
    try:
        found = [file.read_bytes() for file in Path("/proc/self/task").glob("*/children")]
    except OSError:  # a thread that ended just now, whose children are those of another one
        return False
    return bool(found) and not any(found)  # some kernels have no such file


def end_all(processes: Iterable[psutil.Process]) -> None:
    """Kills them and waits until they are gone."""
    processes = list(processes)
    for process in processes:
        process.kill()  # psutil looks whether the PID is still the same process
    psutil.wait_procs(processes, ENDING_SECONDS)


def leftovers(before: set[psutil.Process], threads_before: set[threading.Thread]) -> list[str]:
    """Returns what runs now and did not before, once it had a moment to end; the processes among it are killed."""
    deadline = time.monotonic() + ENDING_SECONDS
    while True:
        processes = children() - before
        threads = [thread for thread in threading.enumerate() if thread not in threads_before]
        if not (processes or threads):
            return []
        if time.monotonic() > deadline:
            found = [f"process {child.pid} {_command(child)}" for child in processes]
            end_all(processes)
            return found + [f"thread {thread.name}" for thread in threads]
        time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "(gone)"
