"""Gives tests to workers where there are several (pytest -n 3): what may not meet on one machine is one worker's."""

import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
RINGS = frozenset({"browser", "emulated", "guests_libvirt", "kernel", "packages", "process", "scan", "systemd"})
"""The folders of tests that need more than made-up trees; all others mirror the code."""
MACHINE_FOLDERS = frozenset({"kernel", "guests_libvirt"})
FOLDERS_OF_THEIR_OWN = frozenset({"browser", "packages", "systemd"})
MACHINE = "machine"
REMAPS = "scan/"
"""How a group of remapped processes begins."""
UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""What starts a program as the first of a PID namespace of its own."""
BEHIND = ("nice", "-n", "5")
"""What has a program take the processor from no program of the first worker: that one's group is the longest."""
TOUCHES_MACHINE = re.compile(
    r"\b(real|locked)_ksm\b|\bworkloads\((?!.*mergeable=False)|\bzram|\bInstalled\b|\bmark\.(kernel|qemu)\b"
    r"|\bopen_arrivals\b|\bkthreadd\b"
)
"""Words of files that need the machine itself; the kernel tells only its first PID namespace of new processes."""
SHARES_PAGES = re.compile(r'\breclaim="remap"')
"""Words of a file whose scan worker may see no guests of another worker's; its guests are not mergeable by ksmd."""
EMULATED = "mark.emulated"
SHARED = 'scope="module"'
"""What a file makes once for all of its tests, at a price, as a rule."""


def group(nodeid: str) -> str:
    """Returns a test's group, which runs one by one; a test that may meet any other is a group of its own.

    All of this machine's KSM, guests, swap, packages and libvirtd are one group. Each file of remapped processes is
    another, or all of them are where workers see each other's processes. The tests of the page have one browser, and
    those of the service one container at a time. A file with something made once for it is a group, or each worker
    would make it. Emulated machines are one only to begin early, for they take longest. Larger groups begin first.
    """
    found = _group(ROOT / nodeid.partition("::")[0]) or nodeid
    return found if apart() or not found.startswith(REMAPS) else REMAPS


@cache
def _group(file: Path) -> str:
    text, folder = file.read_text(), file.parent.name
    if EMULATED in text:
        return "emulated"
    shares = folder == "scan" and SHARES_PAGES.search(text)
    if not shares and (folder in MACHINE_FOLDERS or TOUCHES_MACHINE.search(text)):
        return MACHINE
    if folder == "scan":
        return REMAPS + file.name
    if folder in FOLDERS_OF_THEIR_OWN:
        return folder
    return f"{folder}/{file.name}" if SHARED in text else ""


@cache
def apart() -> bool:
    """Whether workers can be kept from seeing each other's processes, which takes root's rights."""
    if not shutil.which(UNSHARE[0]):
        return False
    return subprocess.run([*UNSHARE, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0


def interpreter_apart() -> str:
    """Returns the command of a worker that sees no process but its own: it is the first of a PID namespace.

    Each scan worker takes over what any other that it sees has shared, and ends it.
    """
    return shlex.join([*BEHIND, *UNSHARE, sys.executable])


def may_run(group_name: str, *, sees_all: bool) -> bool:
    """Whether a worker may run a group: the first one sees all processes, also ksmd, and others only their own."""
    if not apart():
        return True
    return not group_name.startswith(REMAPS) if sees_all else group_name != MACHINE
