"""Memory that somebody else uses: a process that takes so many bytes within so many seconds, and never merges them.

It gives all of it up when the host is nearly out of memory, and is the first that the OOM killer takes.
"""

import argparse
import mmap
import select
import sys
import time
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Self

from bench.guests import ROOT, as_qemu
from ksmtuned_py.door import Door
from ksmtuned_py.sensors.memory import read_memory
from ksmtuned_py.units import GIB, MIB

FLOOR_BYTES = 384 * MIB
"""Available memory below which it gives up, because this machine is somebody's."""
SPARE_BYTES = GIB
STEP_BYTES = 16 * MIB
LOOK_SECONDS = 0.1
MADV_POPULATE_WRITE = 23  # linux/mman.h, since 5.14: twice as fast as writing


class Ballast:
    """Runs the process in a with block. As a guest it looks like one whose memory may not merge."""

    def __init__(self, size_bytes: int, seconds: float = 0, *, as_guest: bool) -> None:
        arguments = ["-m", "bench.ballast", "-name", "guest=ballast", f"--bytes={size_bytes}", f"--seconds={seconds}"]
        if as_guest:
            self._process = as_qemu(arguments)
        else:
            self._process = Popen([sys.executable, *arguments], cwd=ROOT, stdin=PIPE, stdout=PIPE)

    @property
    def pid(self) -> int:
        """The process's ID."""
        return self._process.pid

    def wait_taken(self) -> Self:
        """Waits until it has all its memory; raises RuntimeError when it gave up."""
        assert self._process.stdout
        if not self._process.stdout.readline():
            raise RuntimeError("the ballast gave up: the host has too little memory left")
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def touch_all() -> None:
    """Takes nearly all memory once: the hypervisor of a fresh virtual machine is slow to give it, and only once."""
    with Ballast(read_memory(Door()).available_bytes - SPARE_BYTES, as_guest=False) as ballast:
        ballast.wait_taken()


def main() -> None:
    """The process itself."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-name", metavar="guest=NAME", help="only to be seen in the process list")
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0)
    args = parser.parse_args()
    Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(KeyboardInterrupt):  # Ctrl-C in the terminal is for whoever started it
        _hold(args.bytes, args.seconds)


def _hold(size_bytes: int, seconds: float) -> None:
    steps = -(-size_bytes // STEP_BYTES)
    memory = mmap.mmap(-1, max(steps, 1) * STEP_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    begun = time.monotonic()
    for step in range(steps):
        time.sleep(max(0.0, begun + seconds * step / steps - time.monotonic()))
        if not _room():
            return
        memory.madvise(MADV_POPULATE_WRITE, step * STEP_BYTES, STEP_BYTES)
    print("taken", flush=True)
    while _room() and not select.select([0], [], [], LOOK_SECONDS)[0]:
        pass  # input that is ready is input that ended


def _room() -> bool:
    return read_memory(Door()).available_bytes > FLOOR_BYTES


if __name__ == "__main__":
    main()
