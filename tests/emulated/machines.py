"""What is run in emulated machines: all that is asked of one kernel, one after the other, in one machine."""

import json
from functools import cache
from typing import Any

from tests.support.emulated import Shown, run_inside

DAEMON = "tests.emulated.daemon_inside"
BUDGET = f"{DAEMON} 140 20"
"""The daemon with so many MiB of each guest that no other has, and so many seconds for judging the resting scanner."""
MERGING = f"{DAEMON} 4 0"
HUGE, KEYS, RETURNS, UNDO = (f"tests.emulated.{name}_inside" for name in ("huge", "keys", "returns", "undo"))
PROGRAMS = {"6.1": (BUDGET, HUGE, UNDO), "6.12": (MERGING, HUGE, RETURNS, UNDO, KEYS)}
SECONDS = 1200.0
"""The most that a machine may take. It takes about two minutes where nothing else runs."""
TEST_SECONDS = SECONDS + 60
"""The most that a test may take which is the first to ask."""


def seen(machine: str, program: str) -> dict[str, Any]:
    """Returns what a program has seen in that machine."""
    found: dict[str, Any] = json.loads(_shown(machine).of(program).splitlines()[-1])
    print(found)
    return found


@cache
def _shown(machine: str) -> Shown:
    return run_inside(machine, PROGRAMS[machine], seconds=SECONDS)
