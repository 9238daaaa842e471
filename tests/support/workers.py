"""Gives tests to one worker alone where there are several (pytest -n 2)."""

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
MACHINE_ROOMS = frozenset({"kernel", "scan", "guests_libvirt", "packages"})
TOUCHES_MACHINE = re.compile(r"\breal_ksm\b|\bmark\.(kernel|qemu)\b")
APART_FROM_MACHINE = "mark.emulated"


def group(nodeid: str) -> str:
    """Returns a test's group, which runs one by one: all of this machine's KSM, guests and libvirtd are one."""
    return "machine" if _uses_machine(ROOT / nodeid.partition("::")[0]) else nodeid


@cache
def _uses_machine(file: Path) -> bool:
    text = file.read_text()
    in_a_room_of_it = file.parent.name in MACHINE_ROOMS and APART_FROM_MACHINE not in text
    return in_a_room_of_it or bool(TOUCHES_MACHINE.search(text))
