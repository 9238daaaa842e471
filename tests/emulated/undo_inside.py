"""Gives memory back on an emulated machine's kernel: to one guest from outside, then to all but one without room."""

import json
import subprocess
from pathlib import Path

from ksmtuned_py.cli.workload import Mix, Workload, workloads
from ksmtuned_py.config import Config
from ksmtuned_py.daemon.machine import open_machine, ways_of
from ksmtuned_py.door import Door
from ksmtuned_py.errors import NoRoom
from ksmtuned_py.guests.cgroups import CGROUP_ROOT
from ksmtuned_py.model.room import CGROUP_RESERVE_BYTES
from ksmtuned_py.undo.giveback import Ways, give_back, give_back_guest
from ksmtuned_py.units import KIB, MIB
from tests.support.process import wait_for

KSM = Path("/sys/kernel/mm/ksm")
CGROUP = Path("/", CGROUP_ROOT, "limited")
GUESTS, EQUAL_BYTES = 3, 12 * MIB
PATIENCE_SECONDS = 60.0


def main() -> None:
    """Give memory back, and print one line of JSON."""
    said: list[str] = []
    subprocess.run(["mount", "-t", "cgroup2", "none", CGROUP.parent], check=True)
    (CGROUP.parent / "cgroup.subtree_control").write_text("+memory")
    with workloads([Mix(equal_bytes=EQUAL_BYTES)] * GUESTS, comm="kvm") as guests:
        merge_all()
        with open_machine(Door(), Config()) as machine:
            found = outside_and_all(ways_of(machine, "", said.append, said.append), guests)
        found["wrong_pages"] = sum(guest.wrong_pages() for guest in guests)
    print(json.dumps({**found, "said": said}))


def outside_and_all(ways: Ways, guests: list[Workload]) -> dict[str, object]:
    """The bytes that each guest has alone after each step."""
    found: dict[str, object] = {"merged": [private_bytes(guest) for guest in guests]}
    first, second, _ = ways.host.observe().guests
    give_back_guest(ways, first, None)
    found["one"] = [private_bytes(guest) for guest in guests]
    limit(second.pid, CGROUP_RESERVE_BYTES + EQUAL_BYTES // 2)
    try:
        give_back(ways)
    except NoRoom as error:
        found["refused"] = str(error)
    found["all_but_one"] = [private_bytes(guest) for guest in guests]
    found["stopped"] = number("run")
    limit(second.pid, CGROUP_RESERVE_BYTES + 2 * EQUAL_BYTES)
    give_back(ways)
    found["all"] = [private_bytes(guest) for guest in guests]
    found["still_merged"] = number("pages_shared")
    return found


def limit(pid: int, room_bytes: int) -> None:
    """Put a process in a cgroup that may grow by so many bytes. Its present memory stays charged to the old one."""
    CGROUP.mkdir(exist_ok=True)
    (CGROUP / "cgroup.procs").write_text(str(pid))
    (CGROUP / "memory.max").write_text(str(int((CGROUP / "memory.current").read_text()) + room_bytes))


def merge_all() -> None:
    for name, value in {"pages_to_scan": 5000, "sleep_millisecs": 10, "run": 1}.items():
        (KSM / name).write_text(str(value))
    wanted = (GUESTS - 1) * EQUAL_BYTES // (4 * KIB)
    wait_for(lambda: number("pages_sharing") >= wanted, PATIENCE_SECONDS, "merging", every_seconds=0.25)
    (KSM / "run").write_text("0")


def number(name: str) -> int:
    return int((KSM / name).read_text())


def private_bytes(guest: Workload) -> int:
    """The bytes of a process's memory that it shares with nobody."""
    lines = Path(f"/proc/{guest.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * KIB for line in lines if line.startswith("Private_"))


if __name__ == "__main__":
    main()
