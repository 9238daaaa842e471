"""Reads pressure on memory and CPUs (PSI), and sets a trigger that wakes us when memory pressure rises."""

from ksmtuned_py.door import Door
from ksmtuned_py.door.text import parse_int
from ksmtuned_py.errors import Garbage
from ksmtuned_py.model import Pressure, Stall

PRESSURE = "proc/pressure/memory"
CPU_PRESSURE = "proc/pressure/cpu"
_NO_FULL = "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
"""The file of the CPUs has no such line before Linux 5.13."""
TRIGGER_WINDOW_US = 2_000_000
"""The trigger's window. Without CAP_SYS_RESOURCE the kernel takes only multiples of 2 s (kernel/sched/psi.c)."""


def read_pressure(door: Door) -> Pressure | None:
    """Memory pressure now; None on kernels without PSI, or with it disabled at boot."""
    text = door.read_if_there(PRESSURE)
    return None if text is None else parse_pressure(door.path(PRESSURE), text)


def read_cpu_pressure(door: Door) -> Pressure | None:
    """Pressure on CPUs now; None on kernels without PSI."""
    text = door.read_if_there(CPU_PRESSURE)
    return None if text is None else parse_pressure(door.path(CPU_PRESSURE), _NO_FULL + text)


def parse_pressure(path: str, text: str) -> Pressure:
    """Read a file of pressure; raises Garbage when a line or a figure is missing."""
    lines = {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}
    try:
        return Pressure(some=_stall(path, lines["some"]), full=_stall(path, lines["full"]))
    except (KeyError, ValueError) as error:
        raise Garbage(path, text[:60], "lines some and full with avg10, avg60, avg300, total") from error


def _stall(path: str, words: list[str]) -> Stall:
    values = dict(word.split("=", 1) for word in words)
    return Stall(
        avg10_percent=float(values["avg10"]),
        avg60_percent=float(values["avg60"]),
        avg300_percent=float(values["avg300"]),
        total_seconds=parse_int(path, values["total"]) / 1e6,
    )


def open_trigger(door: Door, stall_ms: int) -> int | None:
    """Open a descriptor that polls POLLPRI when tasks stalled `stall_ms` within 2 s; None without triggers."""
    return door.open_trigger(PRESSURE, f"some {stall_ms * 1000} {TRIGGER_WINDOW_US}\0")
