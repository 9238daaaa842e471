"""The doctor names each cause alone, with evidence and a mend, on a host where nothing else is wrong."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ksmtuned_py.config import Guests
from ksmtuned_py.config.doctor import CODES, Accept
from ksmtuned_py.configfile.wanted import known_keys
from ksmtuned_py.doctor.causes import accepted, blocks
from ksmtuned_py.doctor.examine import examine
from ksmtuned_py.doctor.finding import Facts, Finding, Manager, Seen
from ksmtuned_py.doctor.system import System, Tuned
from ksmtuned_py.guests.balloon import Balloon
from ksmtuned_py.guests.cgroups import Limit
from ksmtuned_py.guests.hugepages import HugePages
from ksmtuned_py.guests.smaps import Smap
from ksmtuned_py.model import Counters, ForeignWrite, Guest, GuestKsm, Knobs, Memory, Run, Vmstat
from ksmtuned_py.units import GIB, MIB
from tests.support.snapshots import guest, snapshot

DOCS = Path(__file__).parent.parent.parent / "docs" / "doctor.md"
WELL_KSM = GuestKsm(rmap_items=2000, merging_pages=1000, profit_bytes=1000 * 4096 - 2000 * 64, mergeable=True)
WELL = replace(guest("web", 100), ksm=WELL_KSM)
RAM = Smap(size_bytes=GIB, shared=False, flags=frozenset({"rd", "wr", "mg"}), sizes={"Rss": GIB})
KNOBS = Knobs(
    run=Run.MERGE, pages_to_scan=100, smart_scan=1, advisor_mode="none", merge_across_nodes=1, max_page_sharing=256
)
MERGED = Counters(pages_sharing=500, full_scans=9)


def facts(one: Guest = WELL, mapping: Smap | None = RAM, seen: Seen | None = None, **fields: Any) -> Facts:
    """The facts of a host on which nothing is wrong, but for what is given."""
    memory = Memory(total_bytes=16 * GIB, available_bytes=10 * GIB, swap_total_bytes=GIB, swap_free_bytes=GIB)
    now = snapshot(guests=(one,), knobs=KNOBS, memory=memory, counters=MERGED)
    read = seen or Seen(mappings=(mapping,) if mapping else ())
    of_facts = {key: fields.pop(key) for key in tuple(fields) if key in Facts.__dataclass_fields__}
    known = Facts(ksm_path="/sys/kernel/mm/ksm", snapshot=replace(now, **fields), seen={one.pid: read})
    return replace(known, **of_facts)


def codes(known: Facts) -> set[tuple[str, str]]:
    """The guest and the code of each finding."""
    return {(found.guest, found.code) for found in examine(known)}


def test_nothing_is_found_where_all_is_well() -> None:
    assert codes(facts()) == set()


FOREIGN = ForeignWrite(knob="pages_to_scan", ours=5000, seen=100)
HOST_CAUSES: dict[str, Facts] = {
    "ksm_absent": facts(snapshot=None),
    "uksm": facts(snapshot=None, system=System(uksm="/sys/kernel/mm/uksm")),
    "ksm_off": facts(knobs=replace(KNOBS, run=Run.STOP)),
    "nobody": facts(guests=(), counters=Counters(full_scans=12028)),
    "unknown_sharers": facts(guests=()),
    "advisor_on": facts(knobs=replace(KNOBS, advisor_mode="scan-time")),
    "knobs_contested": facts(foreign=(FOREIGN,)),
    "foreign_writer": facts(managers=(Manager(name="ksmtuned"),)),
    "foreign_service": facts(units=("ksm.service",)),
    "possible_writer": facts(managers=(Manager(name="momd"),)),
    "enroller": facts(managers=(Manager(name="uksmd"),)),
    "old_kernel": facts(knobs=replace(KNOBS, smart_scan=None, advisor_mode=None)),
    "max_page_sharing": facts(counters=replace(MERGED, stable_node_chains=1, stable_node_dups=3)),
    "merge_across_nodes": facts(knobs=replace(KNOBS, merge_across_nodes=0), numa_nodes=2),
    "khugepaged": facts(
        huge_pages=HugePages(enabled="madvise", max_ptes_shared=256, max_ptes_none=511),
        vmstat=Vmstat(thp_collapse_alloc=9),
    ),
    "slow_ksmd": facts(
        counters=replace(MERGED, pages_scanned=100_000),
        scanner_cpu_seconds=5.0,
        vmstat=Vmstat(thp_split_page=300),
        knobs=replace(KNOBS, use_zero_pages=0),
    ),
    "swap_off": facts(memory=Memory(total_bytes=16 * GIB, available_bytes=10 * GIB)),
    "swap_full": facts(memory=Memory(total_bytes=16 * GIB, available_bytes=10 * GIB, swap_total_bytes=GIB)),
    "psi_off": facts(pressure=None),
    "debt": facts(counters=Counters(pages_sharing=4 * 1024 * 1024)),
    "groups_share": facts(guests=(replace(WELL, group="a"), replace(WELL, name="db", pid=101, group="b"))),
    "cgroup_full": facts(limits=(Limit(cgroup="/machine.slice", file="memory.high", limit_bytes=100, used_bytes=95),)),
    "problem": facts(problems=("a sensor failed",)),
    "zeros_refused": facts(zeros_refused="there is no swap with room"),
}


@pytest.mark.parametrize("code", HOST_CAUSES)
def test_each_cause_on_the_host_is_named_alone(code: str) -> None:
    assert codes(HOST_CAUSES[code]) == {("", code)}


def off(**fields: Any) -> Guest:
    """A guest that differs from one that is well."""
    return replace(WELL, **fields)


NOT_ASKED = GuestKsm(mergeable=False)
LOSER = replace(WELL_KSM, rmap_items=10**6, profit_bytes=-1)
SHARED = replace(RAM, shared=True, flags=frozenset({"rd", "wr", "sh"}), path="/memfd:ram (deleted)")
GUEST_CAUSES: dict[str, Facts] = {
    "switched_off": facts(off(switched_off=True, merge=False, merge_reason="a rule")),
    "nosharepages": facts(off(obstacles=("nosharepages", "vfio", "encrypted"), ksm=NOT_ASKED), None),
    "not_mergeable": facts(off(ksm=NOT_ASKED), None),
    "memory_not_mergeable": facts(mapping=replace(RAM, flags=frozenset({"rd", "wr"}))),
    "encrypted": facts(off(obstacles=("encrypted",), ksm=GuestKsm(rmap_items=9, mergeable=True))),
    "shared": facts(off(ksm=NOT_ASKED, kind="cloud-hypervisor"), SHARED),
    "hugetlb": facts(mapping=replace(RAM, flags=frozenset({"rd", "wr", "ht"}), path="/dev/hugepages/x (deleted)")),
    "vfio": facts(off(obstacles=("vfio",), ksm=GuestKsm(rmap_items=9, mergeable=True))),
    "nvme": facts(off(obstacles=("nvme",))),
    "vdpa": facts(seen=Seen(mappings=(RAM,), obstacles=frozenset({"vdpa"}))),
    "locked": facts(mapping=replace(RAM, flags=RAM.flags | {"lo"})),
    "huge_pages": facts(mapping=replace(RAM, sizes={"Rss": GIB, "AnonHugePages": GIB})),
    "in_swap": facts(
        off(rss_bytes=2 * GIB, ksm=LOSER, losing_passes=3), seen=Seen(mappings=(RAM,), swapped_bytes=6 * GIB)
    ),
    "no_account": facts(off(ksm=None)),
    "nothing_equal": facts(off(ksm=GuestKsm(rmap_items=9, mergeable=True))),
    "not_yet_scanned": facts(off(ksm=GuestKsm(mergeable=True))),
    "losing": facts(off(ksm=LOSER, losing_passes=3)),
    "cgroup_debt": facts(off(room_bytes=MIB)),
    "reports_free_pages": facts(seen=Seen(mappings=(RAM,), balloon=Balloon(present=True, reports_free_pages=True))),
    "no_free_page_reporting": facts(seen=Seen(mappings=(RAM,), balloon=Balloon(present=True))),
    "no_balloon": facts(seen=Seen(mappings=(RAM,), balloon=Balloon())),
}
NOTES = {
    *("possible_writer", "enroller", "old_kernel", "max_page_sharing", "khugepaged"),
    *("switched_off", "nosharepages", "locked", "huge_pages", "not_yet_scanned"),
    *("reports_free_pages", "no_free_page_reporting", "no_balloon"),
}
ALL = {**HOST_CAUSES, **GUEST_CAUSES}


@pytest.mark.parametrize("code", GUEST_CAUSES)
def test_each_cause_in_a_guest_is_named_alone(code: str) -> None:
    assert codes(GUEST_CAUSES[code]) == {("web", code)}


@pytest.mark.parametrize("code", ALL)
def test_each_finding_has_evidence_and_a_mend(code: str) -> None:
    (found,) = examine(ALL[code])
    assert found.sentence
    assert found.evidence
    assert found.mend
    assert found.severity == ("note" if code in NOTES else "finding")


@pytest.mark.parametrize("code", ALL)
def test_keys_that_a_mend_names_are_there(code: str) -> None:
    sections = {key.partition(".")[0] for key in known_keys() if "." in key}
    for found in examine(ALL[code]):
        named = re.findall(r"(?<![\w./-])([a-z_]+(?:\.[a-z_]+)+)", found.mend)
        assert {key for key in named if key.partition(".")[0] in sections} <= set(known_keys()), found.mend


def test_every_code_is_tried_and_has_its_paragraph_with_a_command() -> None:
    text = DOCS.read_text()
    paragraphs = text.partition("\n## Each code\n")[2].split("\n### ")[1:]
    told = {paragraph.partition("\n")[0].strip("`"): paragraph for paragraph in paragraphs}
    assert set(ALL) == set(CODES) == set(told)
    assert [code for code, paragraph in told.items() if "\n    " not in paragraph] == []
    assert [code for code in CODES if f"| `{code}` |" not in text] == []


def test_a_kernel_without_ksm_is_no_fault_where_the_scan_backend_is_meant() -> None:
    (found,) = examine(facts(snapshot=None, scanning=True))
    assert (found.code, found.severity) == ("ksm_absent", "note")


@pytest.mark.parametrize("balloon", [Balloon(), Balloon(present=True), Balloon(pluggable=True)])
@pytest.mark.parametrize(("kind", "word"), [("qemu", "freePageReporting='on'"), ("cloud-hypervisor", "--balloon size")])
def test_free_page_reporting_is_told_of_in_the_words_of_the_hypervisor(kind: str, word: str, balloon: Balloon) -> None:
    (found,) = examine(facts(off(kind=kind), seen=Seen(mappings=(RAM,), balloon=balloon)))
    assert word in found.mend
    assert ("virtio-mem" in found.evidence) == balloon.pluggable


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "cloud-hypervisor"}, "without shared=on"),
        ({"evidence": ("program",)}, "share=off"),
        ({"evidence": ("program", "libvirt")}, "<access mode='private'/>"),
        ({"libvirt_age_seconds": 1.0}, "<access mode='private'/>"),
        ({"kind": "vm"}, "share=off"),
    ],
)
def test_private_memory_is_asked_for_in_the_words_of_who_starts_it(fields: dict[str, Any], words: str) -> None:
    (found,) = (each for each in examine(facts(off(**fields), SHARED)) if each.code == "shared")
    assert words in found.mend


def test_vfio_is_seen_in_smaps_too() -> None:
    device = Smap(size_bytes=GIB, shared=True, path="anon_inode:[vfio-device]")
    assert codes(facts(seen=Seen(mappings=(RAM, device)))) == {("web", "vfio")}


def test_a_shared_window_is_a_note_and_hides_nothing() -> None:
    window = replace(SHARED, size_bytes=64 * MIB)
    found = {each.code: each.severity for each in examine(facts(off(ksm=NOT_ASKED), seen=Seen(mappings=(RAM, window))))}
    assert found == {"shared": "note", "not_mergeable": "finding"}


def test_of_a_daemon_that_runs_the_reason_is_told() -> None:
    (found,) = examine(facts(knobs=replace(KNOBS, run=Run.STOP), daemon="the daemon says: no need"))
    assert "no need" in found.evidence
    assert found.severity == "note"  # wanted so, and no reason for an alarm


def test_one_guest_alone_can_be_asked_for() -> None:
    known = facts(guests=(off(ksm=None), off(name="db", pid=101, ksm=None)))
    assert {found.guest for found in examine(known, known.guests[1])} == {"db"}


def test_losing_for_a_pass_or_two_is_allowed_while_the_daemon_counts() -> None:
    loser = off(ksm=LOSER, losing_passes=2)
    assert codes(facts(loser, daemon="it runs", settings=Guests(losing_passes=3))) == set()


@pytest.mark.parametrize(
    ("cpu_seconds", "split", "use_zero_pages", "found"),
    [(100.1, 900, 0, set()), (105, 900, 1, set()), (105, 300, 0, set()), (105, 900, 0, {("", "slow_ksmd")})],
)
def test_ksmd_is_judged_by_what_it_did_since_the_daemon_looked(
    cpu_seconds: float, split: int, use_zero_pages: int, found: set[tuple[str, str]]
) -> None:
    now: dict[str, Any] = {"knobs": replace(KNOBS, use_zero_pages=use_zero_pages), "scanner_cpu_seconds": cpu_seconds}
    earlier = facts(
        scanner_cpu_seconds=100, counters=replace(MERGED, pages_scanned=10**6), vmstat=Vmstat(thp_split_page=300)
    )
    known = facts(**now, counters=replace(MERGED, pages_scanned=10**6 + 10**5), vmstat=Vmstat(thp_split_page=split))
    assert codes(replace(known, before=earlier.snapshot)) == found


def test_a_stopped_ksmd_is_told_once_and_not_of_every_guest() -> None:
    waiting = off(ksm=GuestKsm(mergeable=True))
    assert codes(facts(waiting, knobs=replace(KNOBS, run=Run.STOP))) == {("", "ksm_off")}


def test_without_ksm_guests_have_no_account_and_that_is_no_finding() -> None:
    without = facts(off(ksm=None), snapshot=None, guests_without_ksm=(off(ksm=None),))
    assert codes(without) == {("", "ksm_absent")}


NEW, OLD = System(keeps_enrolment=True), System()


@pytest.mark.parametrize(
    ("kind", "system", "wanted", "unwanted"),
    [
        ("qemu", OLD, "mem-merge=on", "exec"),
        ("cloud-hypervisor", OLD, "mergeable=on", "exec"),
        ("cloud-hypervisor", NEW, "mergeable=on", "exec"),
        ("firecracker", OLD, "Linux 6.7", "exec"),
        ("firecracker", NEW, "ksmtuned-py exec", "MemoryKSM"),
        ("firecracker", replace(NEW, systemd=252), "ExecStart=", "or with MemoryKSM=yes"),
        ("crosvm", replace(NEW, systemd=255), "MemoryKSM=yes fails before systemd 256", "or with MemoryKSM=yes"),
        ("mergeable", replace(NEW, systemd=256), "or with MemoryKSM=yes", "fails"),
        ("pattern", replace(OLD, systemd=257, distribution=frozenset({"debian"})), "bookworm-backports", "MemoryKSM"),
    ],
)
def test_how_to_ask_for_merging_fits_program_kernel_and_systemd(
    kind: str, system: System, wanted: str, unwanted: str
) -> None:
    (found,) = examine(facts(off(ksm=NOT_ASKED, kind=kind), None, system=system))
    assert wanted in found.mend
    assert unwanted not in found.mend


@pytest.mark.parametrize(
    ("manager", "tuned", "severity", "mend"),
    [
        (
            Manager(name="ksmtuned", unit="ksmtuned.service"),
            None,
            "finding",
            "systemctl disable --now ksmtuned.service",
        ),
        (Manager(name="ksmtuned", container="/kubepods/x"), None, "finding", "what deploys that container"),
        (Manager(name="virt-handler", container="/kubepods/x"), None, "note", "ksmConfiguration"),
        (Manager(name="harvester-node-manager"), None, "note", "kubectl patch ksmtuneds"),
        (Manager(name="vdsmd", unit="vdsmd.service"), None, "note", "settings of its cluster"),
        (Manager(name="tuned"), Tuned(profile="cpu-partitioning", writes_in="script.sh"), "finding", "tuned-adm"),
        (Manager(name="kata-ksm-throttler", unit="kata-vc-throttler.service"), None, "finding", "kata-vc-throttler"),
    ],
)
def test_each_manager_is_stopped_in_its_own_way(
    manager: Manager, tuned: Tuned | None, severity: str, mend: str
) -> None:
    (found,) = examine(facts(managers=(manager,), system=System(tuned=tuned)))
    assert found.severity == severity
    assert mend in found.mend


def test_tuned_with_a_profile_that_leaves_ksm_alone_is_nothing() -> None:
    assert codes(facts(managers=(Manager(name="tuned"),), system=System(tuned=Tuned(profile="virtual-host")))) == set()
    assert codes(facts(managers=(Manager(name="tuned"),))) == set()


def test_whoever_contests_the_knobs_is_named_with_all_who_may_be_it() -> None:
    running = (Manager(name="virt-handler"), Manager(name="tuned"), Manager(name="uksmd"))
    known = facts(foreign=(FOREIGN,), managers=running)
    found = {each.code: each for each in examine(known)}
    assert set(found) == {"knobs_contested", "enroller"}
    assert "pages_to_scan holds 100 instead of our 5000; running: virt-handler" in found["knobs_contested"].evidence
    assert "ksmConfiguration" in found["knobs_contested"].mend
    (alone,) = examine(facts(foreign=(FOREIGN,)))
    assert "virsh node-memory-tune" in alone.mend


def test_the_kernels_advisor_is_right_where_it_is_the_policy() -> None:
    assert codes(facts(knobs=replace(KNOBS, advisor_mode="scan-time"), policy="advisor")) == set()


@pytest.mark.parametrize(
    ("distribution", "words"),
    [({"rhel", "fedora"}, "grubby --update-kernel=ALL --args=psi=1"), ({"debian"}, "update-grub"), ({"arch"}, "boot")],
)
def test_a_boot_option_is_given_as_the_distribution_does(distribution: set[str], words: str) -> None:
    (found,) = examine(facts(pressure=None, system=System(distribution=frozenset(distribution))))
    assert words in found.mend


def test_the_same_finding_of_many_guests_is_one_block() -> None:
    many = tuple(off(name=f"web-{number}", pid=number, ksm=NOT_ASKED) for number in range(1, 17))
    (block,) = blocks(examine(facts(guests=many)))
    assert block.subject == "16 guests (web-1, web-2, web-3 and 13 more)"
    assert block.first.code == "not_mergeable"


def test_guests_whose_mends_differ_are_blocks_of_their_own() -> None:
    two = (off(ksm=NOT_ASKED), off(name="db", pid=101, ksm=NOT_ASKED, kind="cloud-hypervisor"))
    assert [block.subject for block in blocks(examine(facts(guests=two)))] == ["web", "db"]


def test_a_guest_is_meant_by_any_of_its_names() -> None:
    twin = replace(guest("web-7"), aliases=("web", "102"))
    found = [Finding(code="losing", guest="web-7", sentence="s", evidence="e", mend="m")]
    for pattern in ("web", "1*2", "web-*"):
        accept = [Accept(code="losing", guest=pattern, reason="r")]
        assert [each.severity for each in accepted(found, accept, [twin])] == ["accepted"]
    assert accepted(found, [Accept(code="losing", guest="103", reason="r")], [twin]) == found


def test_what_is_accepted_is_so_by_code_and_guest() -> None:
    many = tuple(off(name=name, pid=pid, ksm=NOT_ASKED) for pid, name in ((1, "rt-1"), (2, "rt-2"), (3, "web")))
    memory = Memory(total_bytes=16 * GIB, available_bytes=10 * GIB)
    known = facts(guests=many, memory=memory)
    accept = (
        Accept(code="not_mergeable", guest="rt-*", reason="real-time"),
        Accept(code="swap_off", reason="kubelet"),
        Accept(code="debt", guest="web", reason="not this"),
    )
    found = {(each.guest, each.code): (each.severity, each.reason) for each in accepted(examine(known), accept)}
    assert found == {
        ("", "swap_off"): ("accepted", "kubelet"),
        ("rt-1", "not_mergeable"): ("accepted", "real-time"),
        ("rt-2", "not_mergeable"): ("accepted", "real-time"),
        ("web", "not_mergeable"): ("finding", ""),
    }


def test_khugepaged_and_ksmd_are_told_to_fight_only_when_both_are_seen_at_it() -> None:
    def told(made: int, split: int, run: Run = Run.MERGE, *, held: bool = False) -> Finding | None:
        before = snapshot(vmstat=Vmstat(thp_collapse_alloc=5, thp_split_page=100))
        now = facts(
            huge_pages=HugePages(enabled="madvise", max_ptes_shared=256, max_ptes_none=511),
            vmstat=Vmstat(thp_collapse_alloc=5 + made, thp_split_page=100 + split),
            before=before,
            knobs=replace(KNOBS, run=run),
        )
        held_or_not = replace(now, holds_khugepaged=held)
        return next((each for each in examine(held_or_not) if each.code == "khugepaged"), None)

    fight = told(8, 9)
    assert fight is not None
    assert fight.severity == "finding"
    assert told(8, 9, held=True) == fight  # whatever was asked for, it does not hold
    assert told(8, 0, held=True) is None
    assert "since the daemon looked last 8 were made and 9 split" in fight.evidence
    assert "max_ptes_none" in fight.mend
    for note in (told(8, 0), told(0, 9), told(8, 9, Run.STOP)):
        assert note is not None
        assert note.severity == "note"
        assert "may undo" in note.sentence
