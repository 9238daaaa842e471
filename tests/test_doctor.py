"""The doctor: each cause is named, with evidence and a mend, on a host where nothing else is wrong."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ksmtuned_py.config import Guests
from ksmtuned_py.doctor.examine import examine
from ksmtuned_py.doctor.finding import HOST, Facts, Finding, HugePages
from ksmtuned_py.guests.balloon import Balloon
from ksmtuned_py.guests.smaps import Mapping
from ksmtuned_py.model import Counters, Guest, GuestKsm, Knobs, Memory, Vmstat
from ksmtuned_py.units import GIB, MIB
from tests.support.daemon import verb
from tests.support.snapshots import guest, snapshot
from tests.support.trees import FakeGuest, make_fake_tree, put

WELL_KSM = GuestKsm(rmap_items=2000, merging_pages=1000, profit_bytes=1000 * 4096 - 2000 * 64, mergeable=True)
WELL = replace(guest("web", 100), ksm=WELL_KSM)
RAM = Mapping(size_bytes=GIB, shared=False, flags=frozenset({"rd", "wr", "mg"}), sizes={"Rss": GIB})
KNOBS = Knobs(run=1, pages_to_scan=100, smart_scan=1, advisor_mode="none", merge_across_nodes=1, max_page_sharing=256)


def facts(one: Guest = WELL, mapping: Mapping | None = RAM, **fields: Any) -> Facts:
    """A host on which all is well, but for this."""
    memory = Memory(total_bytes=16 * GIB, available_bytes=10 * GIB, swap_total_bytes=GIB, swap_free_bytes=GIB)
    now = snapshot(guests=(one,), knobs=KNOBS, memory=memory, counters=Counters(pages_sharing=500, full_scans=9))
    seen = {one.pid: [mapping]} if mapping else {}
    of_facts = {key: fields.pop(key) for key in tuple(fields) if key in Facts.__dataclass_fields__}
    return replace(Facts(ksm_path="/sys/kernel/mm/ksm", snapshot=replace(now, **fields), mappings=seen), **of_facts)


def codes(known: Facts) -> set[tuple[str, str]]:
    """Who has what."""
    return {(found.subject, found.code) for found in examine(known)}


def test_nothing_is_found_where_all_is_well() -> None:
    assert codes(facts()) == set()


HOST_CAUSES: dict[str, Facts] = {
    "ksm_absent": facts(snapshot=None),
    "ksm_off": facts(knobs=replace(KNOBS, run=0)),
    "advisor_on": facts(knobs=replace(KNOBS, advisor_mode="scan-time")),
    "foreign_writer": facts(suspects=("ksmtuned",)),
    "foreign_service": facts(units=("ksm.service",)),
    "old_kernel": facts(knobs=replace(KNOBS, smart_scan=None, advisor_mode=None)),
    "max_page_sharing": facts(counters=Counters(stable_node_chains=1, stable_node_dups=3)),
    "merge_across_nodes": facts(knobs=replace(KNOBS, merge_across_nodes=0), numa_nodes=2),
    "khugepaged": facts(
        huge_pages=HugePages(enabled="madvise", max_ptes_shared=256, max_ptes_none=511),
        vmstat=Vmstat(thp_collapse_alloc=9),
    ),
    "swap_off": facts(memory=Memory(total_bytes=16 * GIB, available_bytes=10 * GIB)),
    "psi_off": facts(pressure=None),
    "debt": facts(counters=Counters(pages_sharing=4 * 1024 * 1024)),
    "groups_share": facts(guests=(replace(WELL, group="a"), replace(WELL, pid=101, group="b"))),
    "problem": facts(problems=("a sensor failed",)),
    "zeros_refused": facts(zeros_refused="there is no swap with room"),
}


@pytest.mark.parametrize("code", HOST_CAUSES)
def test_each_cause_on_the_host_is_named_alone(code: str) -> None:
    assert codes(HOST_CAUSES[code]) == {(HOST, code)}


def off(**fields: Any) -> Guest:
    """A guest that differs from one that is well."""
    return replace(WELL, **fields)


GUEST_CAUSES: dict[str, Facts] = {
    "switched_off": facts(off(switched_off=True, merge=False, merge_reason="a rule")),
    "nosharepages": facts(off(obstacles=("nosharepages",), ksm=GuestKsm(mergeable=False)), None),
    "not_mergeable": facts(off(ksm=GuestKsm(mergeable=False)), None),
    "memory_not_mergeable": facts(mapping=replace(RAM, flags=frozenset({"rd", "wr"}))),
    "shared": facts(mapping=replace(RAM, shared=True, flags=frozenset({"rd", "sh"}), path="/memfd:ram (deleted)")),
    "hugetlb": facts(mapping=replace(RAM, flags=frozenset({"rd", "ht"}), path="/dev/hugepages/x (deleted)")),
    "vfio": facts(off(obstacles=("vfio",))),
    "huge_pages": facts(mapping=replace(RAM, sizes={"Rss": GIB, "AnonHugePages": GIB})),
    "no_account": facts(off(ksm=None)),
    "nothing_equal": facts(off(ksm=GuestKsm(rmap_items=9, mergeable=True))),
    "not_yet_scanned": facts(off(ksm=GuestKsm(mergeable=True))),
    "losing": facts(off(ksm=replace(WELL_KSM, rmap_items=10**6, profit_bytes=-1), losing_passes=3)),
    "cgroup_debt": facts(off(room_bytes=MIB)),
    "reports_free_pages": facts(balloons={100: Balloon(present=True, reports_free_pages=True)}),
    "no_free_page_reporting": facts(balloons={100: Balloon(present=True)}),
    "no_balloon": facts(balloons={100: Balloon()}),
}
NOTES = {"reports_free_pages", "no_free_page_reporting", "no_balloon"}


@pytest.mark.parametrize("code", GUEST_CAUSES)
def test_each_cause_in_a_guest_is_named_alone(code: str) -> None:
    assert codes(GUEST_CAUSES[code]) == {("web", code)}


@pytest.mark.parametrize("known", [*HOST_CAUSES.values(), *GUEST_CAUSES.values()])
def test_each_finding_has_evidence_and_a_mend(known: Facts) -> None:
    for found in examine(known):
        assert found.sentence
        assert found.evidence
        assert found.mend


def test_how_free_memory_comes_back_is_a_note_and_all_else_is_not() -> None:
    assert {found.code for known in GUEST_CAUSES.values() for found in examine(known) if found.note} == NOTES
    assert not any(found.note for known in HOST_CAUSES.values() for found in examine(known))


def test_a_kernel_without_ksm_is_no_fault_where_the_scan_backend_is_meant() -> None:
    (found,) = examine(facts(snapshot=None, scanning=True))
    assert (found.code, found.note) == ("ksm_absent", True)


@pytest.mark.parametrize("balloon", [Balloon(), Balloon(present=True), Balloon(pluggable=True)])
@pytest.mark.parametrize(("kind", "word"), [("qemu", "freePageReporting='on'"), ("cloud-hypervisor", "--balloon size")])
def test_free_page_reporting_is_told_of_in_the_words_of_the_hypervisor(kind: str, word: str, balloon: Balloon) -> None:
    (found,) = examine(facts(off(kind=kind), balloons={100: balloon}))
    assert word in found.mend
    assert ("virtio-mem" in found.evidence) == balloon.pluggable


def test_vfio_is_seen_in_smaps_too() -> None:
    device = Mapping(size_bytes=GIB, shared=True, path="anon_inode:[vfio-device]")
    known = facts()
    assert codes(replace(known, mappings={100: [RAM, device]})) == {("web", "vfio")}


def test_of_a_daemon_that_runs_the_reason_is_told() -> None:
    (found,) = examine(facts(knobs=replace(KNOBS, run=0), daemon="the daemon says: no need"))
    assert "no need" in found.evidence


def test_one_guest_alone_can_be_asked_for() -> None:
    known = facts(guests=(off(ksm=None), off(name="db", pid=101, ksm=None)))
    assert {found.subject for found in examine(known, known.guests[1])} == {"db"}


def test_losing_for_a_pass_or_two_is_allowed_while_the_daemon_counts() -> None:
    loser = off(ksm=replace(WELL_KSM, rmap_items=10**6, profit_bytes=-1), losing_passes=2)
    assert codes(facts(loser, daemon="it runs", settings=Guests(losing_passes=3))) == set()


def on_tree(root: Path, *arguments: str) -> tuple[int, dict[str, list[Finding]]]:
    """The exit code and the findings by code, of the doctor as a process on a made-up tree."""
    done = verb("doctor", "--json", "--root", root, "--runtime-dir", root / "none", *arguments)
    assert done.stderr == ""
    found: dict[str, list[Finding]] = {}
    for each in json.loads(done.stdout):
        found.setdefault(each["code"], []).append(Finding(**each))
    return done.returncode, found


QEMU = ("/usr/bin/qemu-system-x86_64", "-name", "guest=web", "-m", "1024")
REPORTING = "virtio-balloon-pci,free-page-reporting=on"


def well_tree(root: Path, *more: str) -> None:
    """A made-up host on which nothing is wrong."""
    web = FakeGuest(pid=1001, name="web", rmap_items=90, merging_pages=80, command=(*QEMU, *more))
    make_fake_tree(root, guests=[web], run=1)
    put(
        root,
        "proc/meminfo",
        (root / "proc/meminfo").read_text().replace("SwapTotal:             0", "SwapTotal:          1024"),
    )


def test_a_host_that_is_well_exits_with_0(tmp_path: Path) -> None:
    well_tree(tmp_path, "-device", REPORTING)
    exit_code, found = on_tree(tmp_path)
    assert (exit_code, set(found)) == (0, {"reports_free_pages"})
    said = verb("doctor", "--root", tmp_path, "--runtime-dir", tmp_path / "none")
    assert said.stdout.startswith("nothing found that keeps memory from merging\nnote: web: memory that it frees comes")


def test_a_guest_that_keeps_its_free_memory_is_told_of_and_is_well(tmp_path: Path) -> None:
    well_tree(tmp_path)
    exit_code, found = on_tree(tmp_path)
    assert (exit_code, set(found)) == (0, {"no_balloon"})
    assert "/proc/1001/cmdline" in found["no_balloon"][0].evidence


def test_on_a_kernel_without_ksm_guests_and_swap_are_looked_at(tmp_path: Path) -> None:
    well_tree(tmp_path, "-device", "virtio-balloon")
    shutil.rmtree(tmp_path / "sys/kernel/mm/ksm")
    (tmp_path / "config.toml").write_text('[daemon]\nbackend = "scan"\n')
    wanted = ("--config", str(tmp_path / "config.toml"), "web")
    exit_code, found = on_tree(tmp_path, *wanted)
    assert (exit_code, set(found)) == (1, {"ksm_absent", "zeros_refused", "no_free_page_reporting"})
    assert "packaging/zram.md" in found["zeros_refused"][0].mend
    put(tmp_path, "proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 1000 0 100\n")
    assert on_tree(tmp_path, *wanted)[0] == 0


def _two_nodes_apart(root: Path) -> None:
    for node in ("node0", "node1"):
        put(root, f"sys/devices/system/node/{node}/cpulist", "0\n")
    put(root, "sys/kernel/mm/ksm/merge_across_nodes", "0\n")


BREAK: dict[str, Callable[[Path], None]] = {
    "ksm_absent": lambda root: shutil.rmtree(root / "sys/kernel/mm/ksm"),
    "ksm_off": lambda root: put(root, "sys/kernel/mm/ksm/run", "0\n"),
    "advisor_on": lambda root: put(root, "sys/kernel/mm/ksm/advisor_mode", "none [scan-time]\n"),
    "foreign_service": lambda root: put(root, "sys/fs/cgroup/system.slice/ksmtuned.service/cgroup.procs", "1\n"),
    "psi_off": lambda root: put(root, "proc/pressure/memory", None),
    "not_mergeable": lambda root: put(
        root, "proc/1001/ksm_stat", "ksm_rmap_items 0\nksm_merge_any: no\nksm_mergeable: no\n"
    ),
    "shared": lambda root: put(
        root, "proc/1001/smaps", "1000000-3000000 rw-s 00000000 00:01 7    /memfd:ram\nVmFlags: rd wr sh \n"
    ),
    "merge_across_nodes": _two_nodes_apart,
}


@pytest.mark.parametrize("code", BREAK)
def test_causes_are_read_from_the_hosts_files(code: str, tmp_path: Path) -> None:
    well_tree(tmp_path)
    BREAK[code](tmp_path)
    exit_code, found = on_tree(tmp_path)
    assert exit_code == 1
    assert code in found


def test_an_old_service_is_found_by_its_process(tmp_path: Path) -> None:
    well_tree(tmp_path)
    old = FakeGuest(pid=1002, name="", comm="ksmtuned", command=("/bin/bash", "/usr/sbin/ksmtuned"), mergeable=False)
    make_fake_tree(tmp_path, guests=[old], run=1)
    _, found = on_tree(tmp_path)
    assert "foreign_writer" in found


def test_a_guest_is_asked_for_by_name_uuid_or_pid(tmp_path: Path) -> None:
    well_tree(tmp_path)
    assert on_tree(tmp_path, "web")[0] == 0
    assert on_tree(tmp_path, "1001")[0] == 0
    assert verb("doctor", "nobody", "--root", tmp_path, "--runtime-dir", tmp_path / "none").returncode == 2


def test_guests_are_an_array_sorted_by_profit(tmp_path: Path) -> None:
    guests = [
        FakeGuest(pid=1001, name="web", rmap_items=1000, merging_pages=1),
        FakeGuest(pid=1002, name="db", uuid="u-2", rmap_items=100, merging_pages=90, zero_pages=5),
    ]
    make_fake_tree(tmp_path, guests=guests)
    done = verb("guests", "--json", "--root", tmp_path, "--runtime-dir", tmp_path / "none")
    first, second = json.loads(done.stdout)
    assert (first["name"], first["uuid"], first["merged_bytes"]) == ("db", "u-2", 90 * 4096)
    assert (first["zero_bytes"], first["candidate_bytes"], first["bookkeeping_bytes"]) == (5 * 4096, 100 * 4096, 6400)
    assert first["profit_bytes"] == first["debt_bytes"] - first["bookkeeping_bytes"]
    assert (second["name"], second["profit_bytes"] < 0, second["mergeable"]) == ("web", True, True)
    table = verb("guests", "--root", tmp_path, "--runtime-dir", tmp_path / "none").stdout.splitlines()
    assert table[0].split()[:3] == ["GUEST", "PID", "MEMORY"]
    assert [line.split()[0] for line in table[1:3]] == ["db", "web"]
    assert table[-1].startswith("2 guests: 384 KiB merged in all")


def test_exec_makes_all_memory_of_a_program_mergeable() -> None:
    ask = "import ctypes; print(ctypes.CDLL(None).prctl(68, 0, 0, 0, 0))"
    probe = subprocess.run([sys.executable, "-c", ask.replace("print(", "exit(0 <= ")], check=False)
    if probe.returncode != 1:
        pytest.skip("this kernel has no PR_SET_MEMORY_MERGE")
    done = verb("exec", "--", sys.executable, "-c", ask)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


def test_exec_says_what_it_cannot_start() -> None:
    assert verb("exec", "--", "/nonexistent").returncode == 2
    assert "wanted a program" in verb("exec").stderr
    assert verb("exec", "echo", "--no-dashes-needed").stdout == "--no-dashes-needed\n"
