"""Guests are switched as the rules want: a few at a time, with room, and never on the tick."""

import select
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ksmtuned_py.door import Door
from ksmtuned_py.door.boot import BOOT_ID
from ksmtuned_py.errors import Garbage, Unreadable
from ksmtuned_py.guests.awaited import MOST_SECONDS
from ksmtuned_py.guests.ledger import Ledger
from ksmtuned_py.hypervisor.enforce import LANES, LOST_LIMIT, RECHECK_SECONDS, RETRY_SECONDS, Enforcer
from ksmtuned_py.model import Guest, GuestKey, GuestKsm
from ksmtuned_py.units import GIB, MIB
from tests.support.process import wait_for
from tests.support.snapshots import guest, snapshot
from tests.support.trees import make_fake_tree

if TYPE_CHECKING:
    from ksmtuned_py.model.record import Record

PAGES_PER_GIB = GIB // 4096


class Monitor:
    """Takes the place of QEMU's monitor. It does what it is told, or fails, or waits."""

    def __init__(self) -> None:
        self.switched: list[tuple[str, bool]] = []
        self.failure = ""
        self.free = threading.Event()
        self.free.set()

        self.stuck: set[str] = set()
        """The guests whose QEMUs do not answer before `free` is set."""
        self.babbling: set[str] = set()
        """The guests whose QEMUs raise an unexpected error."""
        self.at_once = 0
        self.most_at_once = 0

    def __call__(self, guest: Guest, merge: bool) -> str:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if not self.stuck or guest.name in self.stuck:
            self.free.wait(20.0)
        self.at_once -= 1
        if guest.name in self.babbling:
            raise KeyError("return")
        if self.failure:
            raise Unreadable("monitor", self.failure)
        self.switched.append((guest.name, merge))
        return "read back"


class Bench:
    """An enforcer with its monitor, its log and its clock. A tick empties the queue, unless a monitor waits."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.monitor = Monitor()
        self.records: list[Record] = []
        self.seconds = 1000.0
        self.enforcer = Enforcer(self.monitor, self.records.append, ledger, clock=lambda: self.seconds)

    def tick(self, *guests: Guest, after: float = 1.0, **fields: object) -> None:
        """Have it consider one snapshot, and wait for what it began, unless the monitor waits."""
        self.seconds += after
        self.enforcer.consider(snapshot(at=self.seconds, guests=guests, **fields))  # type: ignore[arg-type] # as snapshot takes them
        if self.monitor.free.is_set():
            wait_for(lambda: not switching(), 5.0, "end of it")

    @property
    def told(self) -> list[str]:
        """The sentences that were told."""
        return [record.message for record in self.records]


def switching() -> int:
    """The number of threads that wait for a monitor."""
    return sum(thread.name == "switch" for thread in threading.enumerate())


@pytest.fixture
def bench() -> Iterator[Bench]:
    found = Bench()
    yield found
    found.monitor.free.set()
    wait_for(lambda: not switching(), 5.0, "end of all switches")
    found.enforcer.close()


def domain(name: str, pid: int, merge: bool | None = False, **fields: object) -> Guest:
    """A guest that is a libvirt domain, with 1 GiB merged."""
    ksm = GuestKsm(merging_pages=PAGES_PER_GIB, mergeable=True)
    known = replace(guest(name, pid), ksm=ksm, merge=merge, merge_reason="a rule", uuid=name, libvirt_age_seconds=0.0)
    return replace(known, **fields)  # type: ignore[arg-type] # fields of a Guest


def test_a_guest_is_switched_off_once_and_it_is_told(bench: Bench) -> None:
    web = domain("web", 1)
    for _ in range(3):
        bench.tick(web)
    assert bench.monitor.switched == [("web", False)]
    assert bench.told == ["guest web switched off: a rule; read back"]
    assert bench.records[0].fields["KSMTUNED_UUID"] == "web"
    assert bench.enforcer.switched_off == {web.key}


def test_off_first_and_of_those_the_ones_that_give_least_back(bench: Bench) -> None:
    gates = [domain(f"gate-{number}", number) for number in range(1, LANES)]  # one lane is left
    bench.monitor.stuck = {gate.name for gate in gates}
    bench.monitor.free.clear()
    bench.tick(*gates)
    new = domain("new", 99, ksm=GuestKsm(mergeable=True))
    bench.tick(*gates, domain("yes", 91, True), domain("old", 92), new)
    wait_for(lambda: len(bench.monitor.switched) == 3, 5.0, "all others")
    assert bench.monitor.switched == [("new", False), ("old", False), ("yes", True)]


def test_it_is_switched_on_again_when_the_rule_is_gone(bench: Bench) -> None:
    for merge in (False, False, None, None, None):
        bench.tick(domain("web", 1, merge, merge_reason=""))
    assert bench.monitor.switched == [("web", False), ("web", True)]
    assert bench.told[-1] == "guest web switched on: nothing keeps it out any more; read back"
    assert bench.enforcer.switched_off == frozenset()


def test_a_guest_nobody_wants_anything_of_is_left_alone(bench: Bench) -> None:
    bench.tick(domain("web", 1, None))
    assert (bench.monitor.switched, bench.told) == ([], [])


def test_memory_that_was_plugged_in_later_is_switched_off_as_well(bench: Bench) -> None:
    web = domain("web", 1)
    bench.tick(web)
    bench.tick(web)
    bench.tick(web, after=RECHECK_SECONDS + 1)
    bench.tick(web)
    assert bench.monitor.switched == [("web", False)] * 2
    assert len(bench.told) == 1


def test_without_room_on_the_host_it_waits(bench: Bench) -> None:
    bench.tick(domain("web", 1), available_bytes=GIB)
    bench.tick(domain("web", 1), available_bytes=GIB)
    assert bench.told == ["guest web not switched off: it needs 1 GiB and the host has 768 MiB"]
    bench.tick(domain("web", 1))
    assert bench.monitor.switched == [("web", False)]


def test_without_room_in_its_cgroup_another_goes_first(bench: Bench) -> None:
    tight = domain("tight", 1, room_bytes=100 * MIB)
    bench.tick(tight, domain("web", 2))
    assert bench.monitor.switched == [("web", False)]
    assert "its cgroup's limit leaves 100 MiB" in bench.told[0]


def test_a_guest_that_is_no_domain_is_told_of_once(bench: Bench) -> None:
    bare = domain("bare", 1, libvirt_age_seconds=None)
    bench.tick(bare)
    assert bench.told == []  # libvirt may just be late
    bench.tick(bare, after=20.0)
    bench.tick(bare)
    assert len(bench.told) == 1
    assert "no domain of libvirt's is known for it" in bench.told[0]


def test_nosharepages_is_libvirts_word_and_stays(bench: Bench) -> None:
    bench.tick(domain("web", 1, True, obstacles=("nosharepages",)))
    assert bench.monitor.switched == []


def test_what_does_not_merge_anyway_is_left_alone(bench: Bench) -> None:
    bench.tick(domain("web", 1, ksm=GuestKsm(mergeable=False), libvirt_age_seconds=None), after=20.0)
    assert (bench.monitor.switched, bench.told) == ([], [])


def test_a_failure_is_told_once_and_tried_again(bench: Bench) -> None:
    bench.monitor.failure = "no"
    for _ in range(3):
        bench.tick(domain("web", 1))
    assert bench.told == ["guest web not switched off: monitor: cannot be read: no"]
    bench.monitor.failure = ""
    bench.tick(domain("web", 1), after=RETRY_SECONDS)
    bench.tick(domain("web", 1))
    assert bench.monitor.switched == [("web", False)]


def test_one_look_is_enough_for_all_of_them(bench: Bench) -> None:
    guests = [domain(f"vm-{number:03}", number, ksm=GuestKsm(mergeable=True)) for number in range(1, 301)]
    bench.tick(*guests)
    assert bench.enforcer.switched_off == {guest.key for guest in guests}
    assert bench.monitor.most_at_once <= LANES


def test_a_new_guest_goes_before_all_that_are_only_looked_at_again(bench: Bench) -> None:
    guests = [domain(f"vm-{number:03}", number, ksm=GuestKsm(mergeable=True)) for number in range(1, 301)]
    bench.tick(*guests)
    bench.monitor.switched.clear()
    new = domain("new", 9999, ksm=GuestKsm(mergeable=True))
    bench.tick(*guests, new, after=RECHECK_SECONDS + 1)
    assert new.key in bench.enforcer.switched_off
    assert len(bench.monitor.switched) == 2  # the second is one that is switched again


def test_all_are_looked_at_again_in_turn(bench: Bench) -> None:
    guests = [domain(f"vm-{number}", number) for number in range(1, 4)]
    bench.tick(*guests, available_bytes=10 * GIB)
    bench.monitor.switched.clear()
    for _ in range(3):
        bench.tick(*guests, after=RECHECK_SECONDS + 1)
    assert sorted(name for name, _ in bench.monitor.switched) == ["vm-1", "vm-2", "vm-3"]


def test_the_wait_ends_when_all_that_had_to_be_switched_are(bench: Bench) -> None:
    bench.tick(domain("web", 1), domain("db", 2))
    assert select.select([bench.enforcer], [], [], 0)[0]
    assert bench.enforcer.drain()
    assert not bench.enforcer.drain()
    bench.tick(domain("web", 1), domain("db", 2), after=RECHECK_SECONDS + 1)  # nobody waits for this one
    assert not bench.enforcer.drain()


def test_several_at_once_do_not_take_more_than_the_host_has(bench: Bench) -> None:
    guests = [domain(f"vm-{number}", number) for number in range(1, 5)]
    bench.tick(*guests, available_bytes=2 * GIB + 256 * MIB)
    assert len(bench.monitor.switched) == 2
    assert all("it needs 1 GiB and the host has" in told for told in bench.told if "not switched" in told)
    bench.tick(*guests, available_bytes=2 * GIB + 256 * MIB)
    assert len(bench.monitor.switched) == 4


def test_a_monitor_that_does_not_answer_holds_up_neither_the_tick_nor_the_others(bench: Bench) -> None:
    bench.monitor.free.clear()
    bench.monitor.stuck = {"web"}
    web, *others = domain("web", 1), *(domain(f"vm-{number}", number) for number in range(2, 12))
    bench.tick(web, *others, available_bytes=14 * GIB)
    wait_for(lambda: len(bench.monitor.switched) == len(others), 5.0, "all others")
    bench.tick(web, *others, after=60.0)
    assert "guest web not switched off: no answer within" in bench.told[-1]
    bench.tick(web, *others, after=RETRY_SECONDS)
    assert switching() == 1  # it is not asked twice
    bench.monitor.free.set()
    wait_for(lambda: web.key in bench.enforcer.switched_off, 5.0, "web, late")


def test_monitors_that_do_not_answer_hold_up_others_for_less_than_ksmd_waits(bench: Bench) -> None:
    silent = [domain(f"silent-{number}", number, ksm=None) for number in range(1, LANES + 1)]
    bench.monitor.stuck = {each.name for each in silent}
    bench.monitor.free.clear()
    bench.tick(*silent, domain("web", 99))
    bench.tick(*silent, domain("web", 99), after=MOST_SECONDS / 2)
    wait_for(lambda: bench.monitor.switched == [("web", False)], 5.0, "switch of who answers")


def test_monitors_that_babble_keep_nobody_else_from_being_switched(bench: Bench) -> None:
    babbling = [domain(f"babbles-{number}", 1000 + number, ksm=None) for number in range(LOST_LIMIT + LANES)]
    bench.monitor.babbling = {each.name for each in babbling}
    bench.tick(*babbling)
    bench.tick(*babbling, after=3600.0)
    bench.tick(*babbling, domain("web", 1), after=3600.0)
    assert bench.monitor.switched == [("web", False)]
    assert "guest babbles-0 not switched off: 'return'" in bench.told


def test_not_more_than_a_few_threads_are_left_waiting(bench: Bench) -> None:
    bench.monitor.free.clear()
    guests = [domain(f"web-{number}", number, ksm=GuestKsm(mergeable=True)) for number in range(1, 40)]
    for _ in range(40):
        bench.tick(*guests, after=100.0)
    assert switching() <= LOST_LIMIT + LANES


def test_after_a_restart_it_is_known_who_was_switched_off(tmp_path: Path) -> None:
    make_fake_tree(tmp_path, files={BOOT_ID: "boot-1\n"})
    door, path = Door(str(tmp_path)), tmp_path / "switched.json"
    web, gone = domain("web", 1), domain("gone", 2)
    first = Bench(Ledger(path, door))
    first.tick(web, gone)
    first.enforcer.close()
    second = Bench(Ledger(path, door))
    assert second.enforcer.switched_off == {web.key, gone.key}
    second.tick(replace(web, merge=None, merge_reason=""))  # the rule went away meanwhile
    assert second.monitor.switched == [("web", True)]
    assert web.key not in Ledger(path, door).read()
    second.enforcer.close()


def test_what_another_boot_or_another_tree_left_is_not_taken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "switched.json"
    for name, boot in (("a", "boot-1"), ("b", "boot-1"), ("a", "boot-2")):
        make_fake_tree(tmp_path / name, files={BOOT_ID: f"{boot}\n"})
        ledger = Ledger(path, Door(str(tmp_path / name)))
        assert ledger.read() == frozenset()
        ledger.write({GuestKey(1, 2)})
        assert ledger.read() == {(1, 2)}
    path.write_text("{}")
    with pytest.raises(Garbage):
        ledger.read()
    bench = Bench(ledger)
    assert bench.told[0].startswith("who was switched off before is not known: ")
    bench.enforcer.close()


def test_a_guest_that_ended_meanwhile_is_forgotten(bench: Bench) -> None:
    bench.monitor.free.clear()
    bench.tick(domain("web", 1))
    bench.tick()
    bench.monitor.free.set()
    bench.tick()
    assert bench.enforcer.switched_off == frozenset()
    assert bench.told == []
