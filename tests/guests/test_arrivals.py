"""The real kernel tells of new programs."""

import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ksmtuned_py.door import Door
from ksmtuned_py.guests.arrivals import Arrivals, open_arrivals
from ksmtuned_py.guests.discovery import GuestFinder
from tests.support.need import need

EVENT_NONE, EVENT_EXEC = 0, 2
OVERRUN_EXECS = 2000
"""More execs than the queue takes, which is about 256 (net.core.rmem_default)."""


@pytest.fixture
def arrivals() -> Iterator[Arrivals]:
    why: list[str] = []
    arrivals = open_arrivals(why.append)
    need(arrivals is not None, f"the kernel's process connector: {why}")
    assert arrivals is not None
    with closing(arrivals):
        yield arrivals


def readable(arrivals: Arrivals, seconds: float) -> bool:
    return bool(select.select([arrivals], [], [], seconds)[0])


def drained_with(arrivals: Arrivals, pid: int, seconds: float = 5) -> set[int]:
    """All PIDs that are heard of until this one is."""
    deadline, pids = time.monotonic() + seconds, set[int]()
    while pid not in pids:
        assert readable(arrivals, max(0.0, deadline - time.monotonic())), f"{pid} not among {pids}"
        pids |= arrivals.drain()
    return pids


def forked_without_exec() -> int:
    """Fork a process that only ends, and return its PID."""
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_a_guest_is_heard_of_when_it_starts(arrivals: Arrivals, tmp_path: Path) -> None:
    program = shutil.copy("/bin/sleep", tmp_path / "qemu-system-x86_64")
    with closing(GuestFinder(Door())) as finder:
        finder.find(0)
        with subprocess.Popen([program, "60"]) as process:
            try:
                pids = drained_with(arrivals, process.pid)
                assert finder.is_guest_program(process.pid)
                assert finder.heed(pids)
                assert process.pid in {guest.pid for guest in finder.find(0)}
            finally:
                process.kill()


def test_other_programs_are_heard_of_but_no_guests(arrivals: Arrivals) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        try:
            drained_with(arrivals, process.pid)
            assert not GuestFinder(Door()).heed({process.pid})
        finally:
            process.kill()


def test_forks_and_exits_never_reach_us(arrivals: Arrivals) -> None:
    """The raw messages show it without drain, because the kernel's filter has to hold them back."""
    forked = [forked_without_exec() for _ in range(20)]
    process = subprocess.run(["/bin/true"], check=True)
    assert process.returncode == 0
    with socket.socket(fileno=os.dup(arrivals.fileno())) as raw:
        kinds, pids = zip(*received(raw), strict=True)
    assert set(kinds) - {EVENT_NONE} == {EVENT_EXEC}  # an answer to another listener reaches all listeners
    assert not set(pids) & set(forked)


def received(raw: socket.socket) -> Iterator[tuple[int, int]]:
    """The kind and the PID of every queued event."""
    while select.select([raw], [], [], 0)[0]:
        message = raw.recv(256)
        yield struct.unpack_from("=I", message, 36)[0], struct.unpack_from("=I", message, 56)[0]


def test_an_overrun_is_harmless(arrivals: Arrivals) -> None:
    script = f"i=0; while [ $i -lt {OVERRUN_EXECS} ]; do /bin/true; i=$((i+1)); done"
    subprocess.run(["sh", "-c", script], check=True)
    assert 0 < len(arrivals.drain()) < OVERRUN_EXECS
    with subprocess.Popen(["/bin/true"]) as process:
        assert process.pid in drained_with(arrivals, process.pid)


def test_without_the_connector_there_is_a_reason() -> None:
    need(os.geteuid() == 0, "root, to make a network namespace")
    code = "from ksmtuned_py.guests.arrivals import open_arrivals; print(open_arrivals(print))"
    inside = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert inside == "no notice of new processes, they are found at the next tick: Connection refused\nNone\n"


def test_in_another_pid_namespace_there_is_a_reason() -> None:
    need(os.geteuid() == 0, "root, to make a PID namespace")
    code = "from ksmtuned_py.guests.arrivals import open_arrivals; print(open_arrivals(print))"
    inside = subprocess.run(
        ["unshare", "--pid", "--fork", sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert inside.endswith("the kernel tells only its initial PID namespace of new processes\nNone\n")


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_closing_lets_go_of_everything() -> None:
    before = open_descriptors()
    if (arrivals := open_arrivals()) is not None:
        arrivals.close()
    assert open_descriptors() == before
