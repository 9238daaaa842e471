"""Reads the events that say something about merging, from /proc/vmstat."""

from dataclasses import fields

from ksmtuned_py.door import Door
from ksmtuned_py.door.text import parse_int
from ksmtuned_py.model import Vmstat

VMSTAT = "proc/vmstat"
_NAMES = frozenset(field.name for field in fields(Vmstat))


def read_vmstat(door: Door) -> Vmstat:
    """The events since boot; all None without /proc/vmstat."""
    text = door.read_if_there(VMSTAT)
    return Vmstat() if text is None else parse_vmstat(door.path(VMSTAT), text)


def parse_vmstat(path: str, text: str) -> Vmstat:
    """Read the lines of /proc/vmstat that we know; raises Garbage when one of them is not a number."""
    pairs = (line.partition(" ") for line in text.splitlines())
    return Vmstat(**{name: parse_int(path, value) for name, _, value in pairs if name in _NAMES})
