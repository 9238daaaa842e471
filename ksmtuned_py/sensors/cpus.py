"""Reads for how long CPUs were idle, from /proc/stat."""

import os

from ksmtuned_py.door import Door
from ksmtuned_py.door.text import parse_int
from ksmtuned_py.errors import Garbage

STAT = "proc/stat"
_WANTED = "cpu USER NICE SYSTEM IDLE IOWAIT ..."
_IDLE = slice(4, 6)
"""IDLE and IOWAIT, for ksmd can have a CPU that waits for a disk. Since Linux 6.1.39 it may wait for io_uring alone."""


def read_idle_seconds(door: Door) -> float | None:
    """The seconds for which CPUs were idle since boot, of all CPUs together; None where that is not told."""
    text = door.read_if_there(STAT)
    jiffies = None if text is None else parse_idle_jiffies(door.path(STAT), text)
    return None if jiffies is None else jiffies / os.sysconf("SC_CLK_TCK")


def parse_idle_jiffies(path: str, text: str) -> int | None:
    """Read the line of all CPUs in /proc/stat; None without it, and raises Garbage when it has too few figures."""
    line = text.partition("\n")[0]
    words = line.split()
    if words[:1] != ["cpu"]:
        return None
    if len(words) < _IDLE.stop:
        raise Garbage(path, line[:60], _WANTED)
    return sum(parse_int(path, word) for word in words[_IDLE])
