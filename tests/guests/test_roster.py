"""What is remembered of guests from look to look is what a look from scratch would see."""

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as some

from ksmtuned_py.config import Config, GuestRule, Guests, InForce
from ksmtuned_py.door import Door
from ksmtuned_py.guests.cgroups import CGROUP_ROOT
from ksmtuned_py.guests.discovery import GuestFinder
from ksmtuned_py.guests.roster import Roster
from ksmtuned_py.model import Guest
from ksmtuned_py.units import GIB
from tests.support.trees import FakeGuest, add_guest, make_fake_tree, put

ROUND_SECONDS = 61.0
"""From one look to the next, so that each of them is at all processes."""
POD = "0c5f4b6e-6ef0-4d2c-9d3b-6f0a5ad1a111"
CGROUPS = (
    "/",
    "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope",
    "/a.slice/b.slice/c.scope",
    "/a.slice/b.slice/d.scope",
    f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/x",
)
COMMANDS = (
    ("/usr/bin/qemu-system-x86_64", "-name", "guest=web", "-m", "1024"),
    ("/usr/bin/qemu-system-x86_64", "-name", "guest=web", "-machine", "q35,mem-merge=off"),
    ("/usr/bin/qemu-system-x86_64", "-name", "guest=ns_web", "-uuid", POD, "-m", "1024"),
    ("/opt/vmm", "-name", "guest=db", "-m", "1024"),
    ("/usr/sbin/netdata", "-D"),
)
PROGRAMS = ("qemu-system-x86", "qemu-kvm-one", "netdata", "crosvm")


class Stage:
    """A made-up host whose processes change, and a roster that is with them all the time."""

    def __init__(self, root: Path) -> None:
        make_fake_tree(root, guests=[], files={f"{CGROUP_ROOT}/cgroup.controllers": "memory"})
        self.root = root
        self.door = Door(str(root))
        self.finder = GuestFinder(self.door)
        self.in_force = InForce(Config())
        self.roster = Roster(self.door, self.finder, self.in_force)
        self.guests: dict[int, FakeGuest] = {}

    def put(self, guest: FakeGuest, number: int = 0) -> None:
        """Begin a process, or bring it up to date."""
        self.guests[guest.pid] = guest
        add_guest(self.root, guest)
        if not (self.root / f"proc/{guest.pid}/cgroup").exists():
            self.move(guest.pid, number)

    def change(self, pid: int, change: str, number: int) -> None:
        if change in OF_THE_HOST:
            OF_THE_HOST[change](self, pid, number)
        else:
            self.put(OF_A_GUEST[change](self.guests.get(pid, FakeGuest(pid=pid, name=f"vm{pid}")), number), number)

    def move(self, pid: int, number: int) -> None:
        put(self.root, f"proc/{pid}/cgroup", f"0::{CGROUPS[number % len(CGROUPS)]}\n")

    def end(self, pid: int, _number: int) -> None:
        self.guests.pop(pid, None)
        shutil.rmtree(self.root / f"proc/{pid}", ignore_errors=True)

    def limit(self, _pid: int, number: int) -> None:
        put(self.root, f"{CGROUP_ROOT}/a.slice/b.slice/memory.max", f"{number * GIB}\n" if number else "max\n")

    def tell_pod(self, _pid: int, _number: int) -> None:
        put(self.root, f"var/log/pods/ns_web_{POD}/0.log", "")

    def rule(self, _pid: int, number: int) -> None:
        rule = GuestRule(name="web", merge="no") if number % 2 else GuestRule(cgroup="/a.slice/*", group="a")
        self.in_force.take(Config(guests=Guests(rule=(rule,))))

    def from_scratch(self, now_seconds: float) -> tuple[Guest, ...]:
        with closing(GuestFinder(self.door)) as finder:
            return Roster(self.door, finder, self.in_force).find(now_seconds)


OF_THE_HOST: dict[str, Callable[[Stage, int, int], None]] = {
    "moved": Stage.move,
    "ended": Stage.end,
    "limited": Stage.limit,
    "pod told": Stage.tell_pod,
    "ruled": Stage.rule,
}
OF_A_GUEST: dict[str, Callable[[FakeGuest, int], FakeGuest]] = {
    "another command": lambda guest, number: replace(guest, command=COMMANDS[number % len(COMMANDS)]),
    "another program": lambda guest, number: replace(guest, comm=PROGRAMS[number % len(PROGRAMS)]),
    "PID reused": lambda guest, number: replace(guest, start_ticks=6000 + number),
    "grown": lambda guest, number: replace(guest, rss_pages=1000 + number),
    "merging": lambda guest, number: replace(guest, merging_pages=number),
    "asked": lambda guest, number: replace(guest, mergeable=bool(number % 2)),
}
CHANGES = some.tuples(some.integers(1001, 1003), some.sampled_from([*OF_THE_HOST, *OF_A_GUEST]), some.integers(0, 7))


@settings(max_examples=25)
@given(some.lists(CHANGES, max_size=15))
def test_whatever_changes_is_seen_as_at_a_first_look(changes: list[tuple[int, str, int]]) -> None:
    with TemporaryDirectory() as place:
        stage = Stage(Path(place))
        with closing(stage.finder):
            for number in range(3):
                stage.put(FakeGuest(pid=1001 + number, name="web"), number)
            for look, change in enumerate(changes):
                stage.change(*change)
                now_seconds = look * ROUND_SECONDS
                assert stage.roster.find(now_seconds) == stage.from_scratch(now_seconds)


def test_evidence_alone_is_a_change(tmp_path: Path) -> None:
    stage, guest = Stage(tmp_path), FakeGuest(pid=1001, name="web")
    with closing(stage.finder):
        stage.put(guest)
        assert stage.roster.find(0.0)[0].evidence == ("program",)
        stage.put(replace(guest, comm="qemu-kvm-one", command=("/usr/bin/qemu-kvm-one", *guest.arguments[1:])))
        assert stage.roster.find(ROUND_SECONDS)[0].evidence == ("command line",)
