"""Reads /proc/PID/stat and schedstat, the kernel's lines on one process. Raises Garbage, which names the file. Pure."""

from typing import NamedTuple

from ksmtuned_py.door.text import parse_int, printable
from ksmtuned_py.errors import Garbage

_STATE, _FLAGS, _NICE, _THREADS, _START_TICKS, _CLASS = (field - 3 for field in (3, 9, 19, 20, 22, 41))
"""Places behind the name, which is field 2 of /proc/PID/stat."""
_PF_KTHREAD = 0x0020_0000  # include/linux/sched.h
_SCHED_OTHER = 0  # include/uapi/linux/sched.h


class Identity(NamedTuple):
    """The identity of a process: its printable name as the kernel cuts it, and when it started."""

    comm: str
    start_ticks: int


def parse_stat(text: str, path: str = "stat") -> Identity:
    """Fields 2 and 22 of /proc/PID/stat. The name may hold spaces and brackets, so the last bracket ends it."""
    head, fields = _fields(text, path)
    return Identity(printable(head.partition("(")[2]), parse_int(path, fields[_START_TICKS]))


def is_kernel_thread(stat: str) -> bool:
    """Whether /proc/PID/stat is that of a kernel's thread, by a flag that no program can have."""
    return bool(parse_int("stat", _fields(stat)[1][_FLAGS]) & _PF_KTHREAD)


def thread_count(stat: str) -> int:
    """The number of a process's threads, from /proc/PID/stat."""
    return parse_int("stat", _fields(stat)[1][_THREADS])


def parse_nice(text: str) -> int | None:
    """The nice value in /proc/PID/stat; None in any class but the usual one."""
    fields = _fields(text)[1]
    if len(fields) <= _CLASS or parse_int("stat", fields[_CLASS]) != _SCHED_OTHER:
        return None
    return parse_int("stat", fields[_NICE])


def thread_state(stat: str) -> str:
    """The letter for what a thread does, from /proc/PID/task/TID/stat: R when it runs or waits for a processor."""
    return _fields(stat)[1][_STATE]


def parse_schedstat(text: str, path: str = "schedstat") -> float:
    """CPU time in seconds, from field 1 of /proc/PID/schedstat."""
    return parse_int(path, text.partition(" ")[0]) / 1e9


def parse_waited(text: str, path: str = "schedstat") -> float:
    """Seconds of waiting for a CPU, from field 2 of /proc/PID/schedstat."""
    parse_schedstat(text, path)  # the same complaint of a file that makes no sense
    return parse_int(path, text.partition(" ")[2].partition(" ")[0]) / 1e9


def _fields(text: str, path: str = "stat") -> tuple[str, list[str]]:
    """The text before the last bracket, and the fields from the third on."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    if "(" not in head or len(fields) <= _START_TICKS:
        raise Garbage(path, text[:60], "the fields of a process")
    return head, fields
