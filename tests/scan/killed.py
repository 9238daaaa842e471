"""Kills a process of ours at one call of a function: of the remapping's, or of Python's that the remapping calls."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

REMAP = "ksmtuned_py.scanner.remap"
Seen = Callable[[str], None]


def watch(seen: Seen) -> None:
    """Has the name of every such function told right before it begins; those of system calls are among them."""

    def profile(frame: FrameType, event: str, function: object) -> None:
        if event in ("call", "c_call") and frame.f_globals.get("__name__", "").startswith(REMAP):
            seen(frame.f_code.co_name if event == "call" else getattr(function, "__name__", ""))

    sys.setprofile(profile)


def kill_at(name: str, number: int) -> None:
    """Kills this process right before the function is called for that time."""
    left = number

    def seen(called: str) -> None:
        nonlocal left
        left -= called == name
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    watch(seen)
