"""Gives huge pages back on an emulated machine's kernel, after ksmd has split them all."""

import json
from pathlib import Path

from ksmtuned_py.config import Config
from ksmtuned_py.daemon.machine import open_machine
from ksmtuned_py.door import Door
from ksmtuned_py.model import Guest
from ksmtuned_py.model.hugeplan import Portion
from ksmtuned_py.undo.hugeback import HugeWays, give_huge_back, huge_ways, planned, survey
from ksmtuned_py.units import MIB
from tests.support.hugeguest import guests_in_huge_pages
from tests.support.process import wait_for

KSM = Path("/sys/kernel/mm/ksm")
GUEST_MIB = 32
TWICE = 8
"""So many equal runs in a row have the same content, so that merged pages are mapped twice in a range."""
PATIENCE_SECONDS = 120.0


def main() -> None:
    """Split and give back, and print one line of JSON."""
    with guests_in_huge_pages(2, GUEST_MIB, TWICE) as guests, open_machine(Door(), Config()) as machine:
        pids = [guest.pid for guest in guests]
        found: dict[str, object] = {"whole": [guest.huge_bytes() for guest in guests]}
        before = [guest.contents() for guest in guests]
        merge_all()
        found["split"] = [guest.huge_bytes() for guest in guests]
        ways = huge_ways(Door(), machine.host, 64 * MIB)
        seen = [each for each in machine.host.observe().guests if each.pid in pids]
        surveys = {guest: survey(ways, guest) for guest in seen}
        most = planned(ways, surveys)
        found["planned"] = [each.ranges(most) for each in surveys.values()]
        told = [given_back(ways, guest, most) for guest in seen]
        found["given"] = [each.given for each in told]
        found["problems"] = [each.problem for each in told]
        found["back"] = [guest.huge_bytes() for guest in guests]
        found["unchanged"] = [guest.contents() for guest in guests] == before
    print(json.dumps(found))


def given_back(ways: HugeWays, guest: Guest, most: int) -> Portion:
    """What a guest got back in the end."""
    *_, last = give_huge_back(ways, guest, most)
    return last


def merge_all() -> None:
    """Have ksmd make several passes."""
    begun = number("full_scans")
    for name, value in {"pages_to_scan": 5000, "sleep_millisecs": 10, "run": 1}.items():
        (KSM / name).write_text(str(value))
    wait_for(lambda: number("full_scans") >= begun + 6, PATIENCE_SECONDS, "six passes", every_seconds=0.25)
    (KSM / "run").write_text("0")


def number(name: str) -> int:
    return int((KSM / name).read_text())


if __name__ == "__main__":
    main()
