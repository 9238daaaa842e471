"""Gives tests to one worker alone where there are several (pytest -n 2)."""

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
RINGS = frozenset({"browser", "emulated", "guests_libvirt", "kernel", "packages", "process", "scan", "systemd"})
"""The folders of tests that need more than made-up trees; all others mirror the code."""
MACHINE_FOLDERS = frozenset({"kernel", "guests_libvirt", "systemd"})
FOLDERS_OF_THEIR_OWN = frozenset({"browser", "packages", "scan"})
TOUCHES_MACHINE = re.compile(
    r"\b(real|locked)_ksm\b|\bworkloads\((?!.*mergeable=False)|\bzram|\bInstalled\b|\bmark\.(kernel|qemu)\b"
)
EMULATED = "mark.emulated"


def group(nodeid: str) -> str:
    """Returns a test's group, which runs one by one; a test that may meet any other is a group of its own.

    All of this machine's KSM, guests, swap, containers and libvirtd are one group. Remapped processes are another:
    nobody takes them for guests, and each scan worker takes over what any other has shared. The tests of the page have
    one browser. Emulated machines are one only to begin early, for they take longest. Larger groups begin first.
    """
    return _group(ROOT / nodeid.partition("::")[0]) or nodeid


@cache
def _group(file: Path) -> str:
    text, folder = file.read_text(), file.parent.name
    if EMULATED in text:
        return "emulated"
    if folder in MACHINE_FOLDERS or TOUCHES_MACHINE.search(text):
        return "machine"
    return folder if folder in FOLDERS_OF_THEIR_OWN else ""
