"""Real guests at work, under QEMU without KVM: their own benchmark runs inside, and tells its rounds on the console."""

import os
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from bench.contents import figure_of
from bench.guests import Guest, resident_bytes
from ksmtuned_py.cli.workload import READY_SECONDS, Mix
from ksmtuned_py.units import MIB
from tests.support import qemu

ROOM = 4
"""A guest's memory over its files: they are there twice while it unpacks them."""
TABLE, LOOK_UPS = 300_000, 30_000
PIECE_MIB = 4
ROUND = f"""\
(awk 'BEGIN {{ for (i = 0; i < {TABLE}; i++) table[i] = i
  for (;; n = (n + 1) % PIECES) {{ for (i = 0; i < {LOOK_UPS}; i++) sum += table[int(rand() * {TABLE})]
    system("dd if=" (n % 2 ? "/own" : "/equal") " bs={PIECE_MIB}M count=1 skip=" int(n / 2) " 2> /dev/null |" \
      "md5sum > /dev/null; echo round $(cut -d\\" \\" -f1 /proc/uptime)") }} }}') &"""
"""A round is so many look-ups in a table, each somewhere else in memory, and a checksum of a piece of a file.

Both files are as long, and take turns.
"""


class QemuGuest(Guest):
    """A guest whose files are the equal and the unique part of its mix."""

    def __init__(self, name: str, mix: Mix, directory: Path) -> None:
        self.name = name
        self.mix = mix
        self._pieces = 2 * max(1, min(mix.equal_bytes, mix.unique_bytes) // (PIECE_MIB * MIB))
        files = {
            "/equal": random.Random(mix.seed).randbytes(mix.equal_bytes),
            "/own": os.urandom(mix.unique_bytes),
        }
        initrd = qemu.make_initrd(directory / name, files)
        memory_mib = ROOM * (mix.equal_bytes + mix.unique_bytes) // MIB
        self._qemu = qemu.Guest(name, qemu.guest_kernel(), initrd, memory_mib=memory_mib)
        self._begun, self._had_before, self._waited_before = time.monotonic(), 0, 0
        self._whole_bytes = 0

    @property
    def pid(self) -> int:
        """QEMU's process ID."""
        return self._qemu.pid

    def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> Self:
        """Waits until it is up."""
        self._qemu.wait_text(qemu.UP, timeout_seconds)
        self._whole_bytes = resident_bytes(self.pid)
        return self

    def freed_bytes(self) -> int:
        """Returns what splits of huge pages freed, less what the guest took since it was up."""
        resident = resident_bytes(self.pid)
        return max(0, self._whole_bytes - resident) if resident else 0

    def go(self) -> None:
        """Begins its benchmark, which goes on to its end."""
        self._begun, (self._had_before, self._waited_before) = time.monotonic(), self._scheduled_ns()
        self._qemu.command(ROUND.replace("PIECES", str(self._pieces)))

    def report(self, rounds: int) -> dict[str, Any] | None:  # noqa: ARG002 - it counts its rounds all the time
        """Returns what it is like to be this guest; nobody inside can tell huge pages from small ones."""
        smaps = Path(f"/proc/{self.pid}/smaps").read_text()
        address = largest_mapping(smaps)
        seconds, (had, waited) = time.monotonic() - self._begun, self._scheduled_ns()
        return {
            "memory_bytes": figure_of(smaps, address, "Rss"),
            "huge_bytes": figure_of(smaps, address, "AnonHugePages"),
            "reads_per_second": rounds_per_second(self._qemu.console()) * PIECE_MIB * MIB / 8,
            "cpu_share": (had - self._had_before) / 1e9 / seconds,
            "waited_share": (waited - self._waited_before) / 1e9 / seconds,
        }

    def stop(self) -> None:
        """Ends QEMU."""
        self._qemu.stop()

    def _scheduled_ns(self) -> tuple[int, int]:
        files = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        had, waited = zip(*(map(int, file.read_text().split()[:2]) for file in files), strict=True)
        return sum(had), sum(waited)


def largest_mapping(smaps: str) -> int:
    """Returns the address of the mapping with the most memory: a guest's RAM."""
    sizes = re.findall(r"^([0-9a-f]+)-[0-9a-f]+ [^\n]*\n(?:[^\n]*\n)*?Rss: +(\d+) kB", smaps, re.MULTILINE)
    return int(max(sizes, key=lambda found: int(found[1]), default=("0", "0"))[0], 16)


def rounds_per_second(console: str) -> float:
    """Returns how many rounds a benchmark did in a second, from the times at which it told of them."""
    told = [float(seconds) for seconds in re.findall(r"^round (\d+\.\d+)$", console, re.MULTILINE)]
    return _rate(told) if len(told) > 1 else 0.0


def _rate(told: Sequence[float]) -> float:
    return (len(told) - 1) / (told[-1] - told[0]) if told[-1] > told[0] else 0.0
