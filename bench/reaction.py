"""`python -m bench.reaction` (root): how soon our daemon boosts when a guest starts, and when memory stalls."""

import argparse
import os
import select
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.guests import Guest
from bench.managers import Ours
from bench.own_cost import MIX, wait_cruise
from bench.runs import clean
from bench.thrash import thrashing
from ksmtuned_py.door import Door
from ksmtuned_py.sensors.pressure import open_trigger
from tests.support.ksmlock import RealKsm, locked_ksm
from tests.support.process import adopt_orphans, wait_for

TRIGGER_MS = 150
"""The daemon's default (daemon.pressure_trigger_ms), so that both are told by the same event."""
LOOK_SECONDS = 0.001
PATIENCE_SECONDS = 30.0
CALM_SECONDS = 40.0
"""Time after a stall until its 10-second average no longer counts."""


@dataclass(frozen=True, slots=True)
class Reaction:
    """Seconds until smart_scan was switched off, with which every boost begins."""

    to_guest: float
    to_stall: float


def measure(ksm: RealKsm) -> Reaction:
    """Measures one daemon, which is in cruise before each of the two events."""
    clean(ksm)
    with tempfile.TemporaryDirectory(prefix="reaction-") as name, ExitStack() as undo:
        scratch = Path(name)
        undo.enter_context(Guest("reaction-1", MIX)).wait_ready()
        undo.enter_context(Ours('metrics.address = ""\n').at_work(ksm, scratch))
        wait_cruise(scratch)
        begun = time.monotonic()
        guest = undo.enter_context(Guest("reaction-2", MIX))
        to_guest = _boosts(ksm) - begun
        guest.wait_ready()
        wait_cruise(scratch)
        return Reaction(to_guest, _to_stall(ksm))


def _to_stall(ksm: RealKsm) -> float:
    trigger = open_trigger(Door(), TRIGGER_MS)
    assert trigger is not None, "no PSI on this kernel"
    poll = select.poll()
    poll.register(trigger, select.POLLPRI)
    try:
        with thrashing():
            assert poll.poll(PATIENCE_SECONDS * 1000), f"no stall within {PATIENCE_SECONDS:g} s"
            begun = time.monotonic()
            return _boosts(ksm) - begun
    finally:
        os.close(trigger)


def _boosts(ksm: RealKsm) -> float:
    wait_for(lambda: ksm.number("smart_scan") == 0, PATIENCE_SECONDS, "boost", every_seconds=LOOK_SECONDS)
    return time.monotonic()


def said(name: str, values: list[float]) -> str:
    """Returns one line of the result."""
    in_ms = [f"{value * 1000:.0f}" for value in (median(values), min(values), max(values))]
    return f"{name}: {in_ms[0]} ms ({in_ms[1]} to {in_ms[2]}, {len(values)} times)"


def main() -> None:
    """Measures both events, several times."""
    parser = argparse.ArgumentParser("python -m bench.reaction", description="how soon our daemon boosts")
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="(%(default)s)")
    turns = parser.parse_args().turns
    adopt_orphans()
    reactions = []
    with locked_ksm() as ksm:
        for turn in range(turns):
            reactions.append(measure(ksm))
            time.sleep(CALM_SECONDS if turn + 1 < turns else 0)
    print(said("from a guest's start to the boost", [reaction.to_guest for reaction in reactions]))
    print(said("from a memory stall to the boost", [reaction.to_stall for reaction in reactions]))


if __name__ == "__main__":
    main()
