"""Reads for how long CPUs were idle, from /proc/uptime."""

from ksmtuned_py.door import Door
from ksmtuned_py.errors import Garbage

UPTIME = "proc/uptime"
"""Cheaper than /proc/stat, which counts the interrupts of all CPUs at each reading."""


def read_idle_seconds(door: Door) -> float | None:
    """The seconds for which CPUs were idle since boot, of all CPUs together; None without /proc/uptime."""
    text = door.read_if_there(UPTIME)
    return None if text is None else parse_idle_seconds(door.path(UPTIME), text)


def parse_idle_seconds(path: str, text: str) -> float:
    """Read the second figure of /proc/uptime; raises Garbage when there is none."""
    try:
        _up, idle = (float(word) for word in text.split())
    except ValueError as error:
        raise Garbage(path, text[:60], "the seconds since boot, and those for which CPUs were idle") from error
    return idle
