"""Reads /proc/PID/status, the kernel's lines on one process or thread. Pure."""

from collections.abc import Mapping
from string import hexdigits

from ksmtuned_py.door.text import kernel_lines
from ksmtuned_py.units import KIB

_MIGRATION = ("mig/", "live_migr", "multifd", "postcopy", "bg_snap")


def parse_status(text: str) -> dict[str, str]:
    """The lines by their names, without the tab before the value."""
    return {name: value.removeprefix("\t") for name, _, value in (line.partition(":") for line in kernel_lines(text))}


def status_bytes(status: Mapping[str, str], name: str) -> int | None:
    """A size among these lines; None when there is none, as for a thread of the kernel."""
    size = status.get(name, "").split()
    return int(size[0]) * KIB if size and size[0].isdecimal() else None


def has_capability(text: str, number: int) -> bool:
    """Whether a process of which /proc/PID/status says this has a capability (linux/capability.h)."""
    effective = parse_status(text).get("CapEff", "")
    return all(digit in hexdigits for digit in effective) and bool(int(effective or "0", 16) >> number & 1)


def is_stopped(status: Mapping[str, str]) -> bool:
    """Whether a process with these lines is kept from running by somebody."""
    return status.get("State", "").startswith(("T", "t"))


def is_migration(name: str) -> bool:
    """Whether a thread with this name moves a QEMU guest to another host, or writes a snapshot of it."""
    return name.startswith(_MIGRATION)
