"""Tells the paths of cgroups from the host's root, also to a reader in a cgroup namespace of its own.

A container is such a reader. To it the kernel says /../../web.slice of a cgroup that is not below the reader's own.
"""

import re
from contextlib import suppress
from functools import lru_cache

from ksmtuned_py.door import Door
from ksmtuned_py.door.text import kernel_lines
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.guests.cgroups import CGROUP_ROOT

_UPWARDS = re.compile(r"((?:/\.\.)+)(/.*)?")


def from_root(door: Door, text: str) -> str:
    """The text of a /proc/PID/cgroup with the paths of the unified tree as the host has them.

    A line whose path is not known is left out, so that no other path is taken for it.
    """
    if ":/.." not in text:
        return text
    lines = (_line_from_root(door, line) for line in kernel_lines(text))
    return "\n".join(line for line in lines if line)


def _line_from_root(door: Door, line: str) -> str:
    number, controllers, path = line.split(":", 2)
    upwards = _UPWARDS.fullmatch(path)
    if upwards is None:
        return line
    steps = upwards[1].count("/")
    own = own_cgroup(door).split("/")[1:] if number == "0" else []
    if len(own) < steps:
        return ""
    above = "".join(f"/{name}" for name in own[: len(own) - steps])
    return f"{number}:{controllers}:{above}{upwards[2] or ''}"


@lru_cache(maxsize=4)
def own_cgroup(door: Door) -> str:
    """The path of this process's cgroup in the host's unified tree; '' where that is not to be seen.

    Only the tree itself tells it, so all of it is searched once (20 ms with a thousand cgroups).
    """
    if not door.exists(f"{CGROUP_ROOT}/cgroup.controllers"):
        return ""
    own = (door.read_if_there("proc/self/stat") or "").partition(" ")[0]
    waiting = [""]
    while waiting:
        path = waiting.pop()
        if own in _members(door, path):
            return path
        waiting += [f"{path}/{name}" for name in door.directories(f"{CGROUP_ROOT}{path}")]
    return ""


def _members(door: Door, path: str) -> list[str]:
    with suppress(KsmtunedError, OSError):  # it went away
        return (door.read_if_there(f"{CGROUP_ROOT}{path}/cgroup.procs") or "").split()
    return []
