"""A guest is kept out while a rule asks for what is unknown of it, and the admin is told."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ksmtuned_py.config import Config, GuestRule, Guests, InForce
from ksmtuned_py.door import Door
from ksmtuned_py.guests.discovery import GuestFinder
from ksmtuned_py.guests.domains import NOTHING_SEEN, Domain, View
from ksmtuned_py.guests.roster import STALE_SECONDS, Roster
from ksmtuned_py.guests.unknown import TOLD_WITHIN_SECONDS
from ksmtuned_py.model import Guest
from tests.support.trees import FakeGuest, add_guest, make_fake_tree, put

WEB = FakeGuest(pid=1001, name="web", uuid="u-1")
JAVA = FakeGuest(pid=1002, name="java", comm="java", command=("/usr/bin/java",))
NO_GOLD = GuestRule(tag="gold", merge="no")
HELD = "unknown yet whether a rule keeps it out"
LATER = 100.0 + TOLD_WITHIN_SECONDS


@dataclass
class Told:
    """A link to libvirt, which has told nothing yet."""

    view: View = field(default_factory=lambda: NOTHING_SEEN)

    def tell(self, at_seconds: float, **tags: str) -> None:
        """Have libvirt list domains, by their UUIDs without the dash, with these tags."""
        domains = {f"u-{uuid[1:]}": Domain(uuid=f"u-{uuid[1:]}", name=uuid, tag=tag) for uuid, tag in tags.items()}
        self.view = View(domains=domains, at_seconds=at_seconds)


class Bench:
    """A roster on a made-up tree with a domain and a program that asked for merging."""

    def __init__(self, root: Path, *rules: GuestRule, link: bool = True, **keys: object) -> None:
        make_fake_tree(root, guests=[WEB, JAVA])
        self.root = root
        self.place("0::/machine.slice/web.scope\n")
        put(root, "sys/fs/cgroup/cgroup.controllers", "memory\n")
        self.told = Told()
        guests = Guests.model_validate({"rule": [rule.model_dump() for rule in rules], **keys})
        door = Door(str(root))
        self.roster = Roster(door, GuestFinder(door), InForce(Config(guests=guests)), self.told if link else None)

    def place(self, text: str) -> None:
        """Put both processes in the cgroups of this text."""
        for guest in (WEB, JAVA):
            put(self.root, f"proc/{guest.pid}/cgroup", text)

    def look(self, now_seconds: float) -> dict[str, Guest]:
        """The guests at one more look, by UUID."""
        return {guest.uuid or "java": guest for guest in self.roster.find(now_seconds)}

    @property
    def said(self) -> str:
        """All problems as one text."""
        return "; ".join(self.roster.problems)


def test_a_rule_by_tag_keeps_a_domain_out_until_libvirt_has_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, NO_GOLD)
    found = bench.look(100.0)
    assert (found["u-1"].merge, found["u-1"].merge_reason.partition(":")[0]) == (False, HELD)
    assert found["java"].merge is None  # no domain, so it has no tag
    assert bench.said == ""  # libvirt answers in a moment, as a rule
    bench.told.tell(101.0, u1="silver")
    assert bench.look(101.0)["u-1"].merge is None
    bench.told.tell(102.0, u1="gold")
    assert bench.look(102.0)["u-1"].merge_reason == 'a rule says merge = "no"'
    assert bench.look(LATER)["u-1"].unknown == ()
    assert bench.said == ""


def test_a_libvirt_that_accepts_and_hangs_is_told_of(tmp_path: Path) -> None:
    bench = Bench(tmp_path, NO_GOLD)
    bench.look(100.0)
    assert bench.look(LATER)["u-1"].merge is False
    assert bench.said == (
        "guest web is kept out of merging, for it is unknown whether a rule wants that: libvirt has not told of it yet"
    )
    bench.look(101.0 + STALE_SECONDS)
    assert "libvirt does not answer, what it last said still counts: it has said nothing yet" in bench.said


def test_without_a_rule_that_asks_for_it_nobody_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path, GuestRule(cgroup="/other/*", merge="no"), GuestRule(tag="gold", merge="yes"))
    assert {guest.merge for guest in bench.look(100.0).values()} == {None}
    bench.look(LATER)
    assert bench.said == ""


@pytest.mark.parametrize("listed", [LATER - 0.1, LATER])
def test_a_qemu_that_libvirt_does_not_list_is_none_of_its_own(tmp_path: Path, listed: float) -> None:
    bench = Bench(tmp_path, NO_GOLD)
    bench.look(100.0)
    bench.told.tell(listed)
    assert bench.look(LATER + 1)["u-1"].merge is (None if listed == LATER else False)


def test_a_domain_that_libvirt_lists_and_says_nothing_of_stays_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path, NO_GOLD)
    bench.look(100.0)
    bench.told.view = View(domains={}, at_seconds=LATER, unread=frozenset({"u-1"}))
    assert bench.look(LATER)["u-1"].merge is False


@pytest.mark.parametrize(
    ("cgroup", "merge"), [("/qemu.slice/102.scope", None), (r"/machine.slice/machine-qemu\x2d1\x2dweb.scope", False)]
)
def test_where_no_libvirt_is_only_what_it_has_started_waits_for_it(
    tmp_path: Path, cgroup: str, merge: bool | None
) -> None:
    bench = Bench(tmp_path, NO_GOLD)
    bench.place(f"0::{cgroup}\n")
    bench.told.view = replace(NOTHING_SEEN, expected=False)
    assert bench.look(100.0)["u-1"].merge is merge


def test_a_rule_by_tag_without_libvirt_is_told_of(tmp_path: Path) -> None:
    bench = Bench(tmp_path, NO_GOLD, link=False, libvirt_uri="")
    bench.look(100.0)
    assert bench.look(LATER)["u-1"].merge is False
    assert bench.said.endswith("guests.libvirt_uri leaves libvirt out")


def test_a_rule_by_cgroup_keeps_all_out_where_there_are_no_unified_cgroups(tmp_path: Path) -> None:
    bench = Bench(tmp_path, GuestRule(cgroup="/tenant-a/*", merge="no"))
    assert {guest.merge for guest in bench.look(99.0).values()} == {None}
    put(tmp_path, "sys/fs/cgroup/cgroup.controllers", None)
    bench.place("9:memory:/tenant-a/web\n1:name=systemd:/tenant-a/web\n")
    assert {guest.merge for guest in bench.look(100.0).values()} == {False}
    bench.look(LATER)
    assert bench.said == (
        "2 guests are kept out of merging, for it is unknown whether a rule wants that: "
        "this host has no unified cgroups, by which rules go"
    )


def test_isolation_chooses_when_libvirt_has_told_of_all(tmp_path: Path) -> None:
    bench = Bench(tmp_path, GuestRule(tag="gold", group="gold"), isolation="groups")
    first = bench.look(100.0)
    assert {guest.merge for guest in first.values()} == {False}
    assert first["java"].merge_reason == "of which group the guests may merge is not chosen yet"
    put(tmp_path, f"proc/{WEB.pid}/statm", "200 200 0 0 0 0 0\n")
    put(tmp_path, f"proc/{JAVA.pid}/statm", "100 100 0 0 0 0 0\n")
    bench.told.tell(101.0, u1="gold")
    assert {name: guest.merge for name, guest in bench.look(101.0).items()} == {"u-1": None, "java": False}


CLAIM = FakeGuest(pid=900, name="tenant-x", uuid="u-1", comm="kvm")


def claimed(root: Path, pid_file: str | None) -> dict[int, Guest]:
    """A gold domain, and somebody's process with its UUID, as a roster sees them, by PID."""
    bench = Bench(root, GuestRule(name="tenant-*", merge="yes"), NO_GOLD)
    add_guest(root, CLAIM)
    put(root, f"proc/{CLAIM.pid}/cgroup", "0::/user.slice\n")
    put(root, "run/libvirt/qemu/g1.pid", pid_file)
    bench.told.tell(100.0, g1="gold")
    return {guest.pid: guest for guest in bench.roster.find(101.0)}


def test_nobody_passes_for_another_domain_by_its_uuid(tmp_path: Path) -> None:
    """Otherwise a switch for the process would be made in the domain, which a rule keeps out."""
    found = claimed(tmp_path, "1001\n")
    assert (found[900].tag, found[900].libvirt_age_seconds, found[900].unknown) == ("", None, ())
    assert (found[1001].tag, found[1001].merge) == ("gold", False)
    assert found[1001].libvirt_age_seconds is not None


def test_who_says_so_is_told_and_no_rule_by_uuid_is_for_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, GuestRule(uuid="u-1", group="gold"))
    add_guest(tmp_path, CLAIM)
    put(tmp_path, "run/libvirt/qemu/g1.pid", "1001\n")
    bench.told.tell(100.0, g1="gold")
    assert {guest.pid: guest.group for guest in bench.roster.find(101.0)} == {900: "", 1001: "gold", 1002: ""}
    assert (
        bench.said
        == "the processes 900, 1001 all say that they are u-1: libvirt's is 1001, and no other is taken for it"
    )


@pytest.mark.parametrize("pid_file", [None, "nonsense"])
def test_where_nobody_tells_who_is_the_domain_none_of_them_is(tmp_path: Path, pid_file: str | None) -> None:
    found = claimed(tmp_path, pid_file)
    for guest in (found[900], found[1001]):
        assert (guest.tag, guest.libvirt_age_seconds, guest.unknown) == ("", None, ("tag", "name"))
    assert found[1001].merge is False
