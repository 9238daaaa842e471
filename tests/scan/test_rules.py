"""The admin's rules hold for the scan backend: who may not merge is left alone, and who merges with whom."""

import hashlib
from dataclasses import replace
from pathlib import Path

from ksmtuned_py.backends.scan import ScanBackend
from ksmtuned_py.cli.workload import Mix, Workload, workloads
from ksmtuned_py.config import Config, GuestRule, Guests, InForce, Scan
from ksmtuned_py.door import Door
from ksmtuned_py.guests.rules import ruled
from ksmtuned_py.model import Guest
from ksmtuned_py.scanner.choice import target_of
from ksmtuned_py.units import MIB
from tests.scan.conftest import guest, scanning, wait_passes, wait_true
from tests.scan.test_remap import REMAP

MIX = Mix(equal_bytes=12 * MIB, unique_bytes=4 * MIB)


def known(name: str, rules: tuple[GuestRule, ...] = (), **fields: object) -> Guest:
    one = replace(Guest(pid=7, start_ticks=1, name=name, kind="qemu"), **fields)  # type: ignore[arg-type]  # any field
    return ruled([one], Guests(rule=rules), "", {})[0]


def test_a_rule_keeps_a_guest_out() -> None:
    rules = (GuestRule(name="secret-*", merge="no"),)
    assert target_of(known("web", rules), Scan()).merge
    assert not target_of(known("secret-1", rules), Scan()).merge
    assert not target_of(known("web", obstacles=("nosharepages",)), Scan()).merge


def test_only_the_enrolled_group_merges_with_isolation() -> None:
    settings = Guests(isolation="groups", isolation_group="a", rule=(GuestRule(name="a-*", group="a"),))
    guests = [known("a-1"), known("b-1")]
    assert [target_of(one, Scan()).merge for one in ruled(guests, settings, "a", {})] == [True, False]


def test_every_name_of_a_guest_counts_for_its_group_and_for_remapping() -> None:
    settings = Scan(groups=("web-*",), remap_guests=("102",))
    proxmox = target_of(known("web-1-102", aliases=("web-1", "102")), settings)
    assert (proxmox.group, proxmox.remap) == ("web-*", True)
    assert not target_of(known("web-1", aliases=("103",)), settings).remap


def test_a_rules_group_goes_before_the_one_by_name() -> None:
    settings = Scan(groups=("web-*",))
    assert target_of(known("web-1"), settings).group == "web-*"
    assert target_of(known("web-1", (GuestRule(name="*", group="a"),)), settings).group == "a"


def test_a_guest_whose_names_are_not_all_known_yet_is_left_alone_where_groups_go_by_name() -> None:
    young = known("instance-1", unknown=("tag", "name"))
    assert target_of(young, Scan()).merge
    assert not target_of(young, Scan(groups=("web-*",))).merge
    assert not target_of(young, Scan(groups=("web-*", "instance-*"))).merge  # it may be the first one's
    assert target_of(young, Scan(groups=("instance-*", "web-*"))).merge
    assert target_of(replace(young, group="a"), Scan(groups=("web-*",))).merge
    assert target_of(replace(young, unknown=("tag",)), Scan(groups=("web-*",))).merge


def store_in(one: Workload) -> set[str]:
    """Returns the memfds of merged pages that a guest maps, without the time at which they were made."""
    lines = Path(f"/proc/{one.pid}/maps").read_text().splitlines()
    names = [line.split()[5].removeprefix("/memfd:") for line in lines if "/memfd:ksmtuned-py-pages" in line]
    return {name.rpartition("-")[0] for name in names}


def store_of(group: str) -> str:
    return f"ksmtuned-py-pages-{hashlib.sha256(group.encode()).hexdigest()[:8]}"


def merged_in(backend: ScanBackend, guests: list[Workload], groups: list[str]) -> None:
    """Waits until each guest has merged pages of its group and of no other, and looks at all its bytes."""
    wanted = [{store_of(group)} for group in groups]
    wait_true(lambda: [store_in(one) for one in guests] == wanted, f"pages merged in {groups}")
    wait_passes(backend, 2)
    assert [one.wrong_pages() for one in guests] == [0] * len(guests)


def test_a_guest_that_may_not_merge_any_more_gets_its_pages_back(root: None, no_ksm: Door) -> None:
    with workloads([MIX] * 3, mergeable=False) as guests, scanning(no_ksm, REMAP, guests) as backend:
        merged_in(backend, guests, ["", "", ""])
        known = [guest(one) for one in guests]
        backend.watch([replace(known[0], merge=False), *known[1:]])
        wait_true(lambda: not store_in(guests[0]), "pages given back")
        wait_passes(backend, 2)
        assert [bool(store_in(one)) for one in guests] == [False, True, True]
        assert [one.wrong_pages() for one in guests] == [0, 0, 0]
        assert (backend.guests[0]["saveable_pages"], backend.guests[0]["zero_pages_out"]) == (0, 0)
        backend.watch(known)
        merged_in(backend, guests, ["", "", ""])


def test_who_may_not_be_remapped_any_more_gets_its_pages_back(root: None, no_ksm: Door) -> None:
    in_force = InForce(Config(scan=REMAP))
    with workloads([MIX] * 3, mergeable=False) as guests, scanning(no_ksm, in_force, guests) as backend:
        merged_in(backend, guests, ["", "", ""])
        in_force.take(Config(scan=REMAP.model_copy(update={"remap_guests": ()})))  # as a reload does
        backend.watch([guest(one) for one in guests])
        wait_true(lambda: not any(map(store_in, guests)), "pages given back")
        assert [one.wrong_pages() for one in guests] == [0, 0, 0]


def test_guests_that_change_their_group_leave_the_other_ones_pages(root: None, no_ksm: Door) -> None:
    with workloads([MIX] * 3, mergeable=False) as guests, scanning(no_ksm, REMAP, guests) as backend:
        merged_in(backend, guests, ["", "", ""])
        known = [guest(one) for one in guests]
        backend.watch([replace(known[0], group="a"), replace(known[1], group="a"), known[2]])
        merged_in(backend, guests, ["a", "a", ""])
