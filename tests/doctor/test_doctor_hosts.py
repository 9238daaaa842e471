"""The verb `doctor` on hosts as their owners have them finds what is wrong, and nothing else."""

import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from ksmtuned_py.cli.main import main
from ksmtuned_py.door import Door
from ksmtuned_py.guests.ledger import Ledger
from ksmtuned_py.model import GuestKey
from ksmtuned_py.units import GIB
from tests.support.daemon import verb
from tests.support.trees import FakeGuest, make_fake_tree, mapping, meminfo, put

QEMU = ("/usr/bin/qemu-system-x86_64", "-name", "guest=web", "-m", "1024")
REPORTING = ("-device", "virtio-balloon-pci,free-page-reporting=on")
SWAP = {"SwapTotal": 8 * GIB // 1024, "SwapFree": 8 * GIB // 1024}
WEB = FakeGuest(pid=1001, name="web", rmap_items=90, merging_pages=80, command=(*QEMU, *REPORTING))
NOT_ASKED = "ksm_rmap_items 0\nksm_merge_any: no\nksm_mergeable: no\n"
CLOUD = FakeGuest(pid=1001, name="", comm="cloud-hyperviso", command=("/usr/bin/cloud-hypervisor", "--kernel", "k"))

Found = dict[str, list[dict[str, Any]]]


def on_tree(root: Path, *arguments: str) -> tuple[int, Found]:
    """Run the verb on a made-up tree; returns its exit code and its findings by code."""
    exit_code, text = called(root, "--json", *arguments)
    found: Found = {}
    for each in json.loads(text):
        found.setdefault(each["code"], []).append(each)
    return exit_code, found


def called(root: Path, *arguments: str) -> tuple[int, str]:
    """Run the verb in this process, which is a second faster than in its own; returns exit code and output."""
    output, errors = StringIO(), StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        exit_code = main(["doctor", "--root", str(root), "--runtime-dir", str(root / "none"), *arguments])
    assert errors.getvalue() == ""
    return exit_code, output.getvalue()


def said(root: Path, *arguments: str) -> str:
    """The text that the verb prints for a person."""
    return called(root, *arguments)[1]


def well_tree(root: Path, *more: FakeGuest, **ksm: Any) -> None:
    """Make a host on which nothing is wrong."""
    swaps = "Filename Type Size Used Priority\n/dev/zram0 partition 8388608 0 100\n"
    files = {"proc/meminfo": meminfo(**SWAP), "proc/swaps": swaps}
    make_fake_tree(root, guests=more or [WEB], files=files, **{"run": 1, "pages_sharing": 80, "full_scans": 9, **ksm})


def test_who_an_ended_daemon_left_switched_off_is_not_said_to_have_not_asked(tmp_path: Path) -> None:
    well_tree(tmp_path)
    put(tmp_path, "proc/1001/ksm_stat", NOT_ASKED)
    (tmp_path / "none").mkdir()
    Ledger(tmp_path / "none/switched.json", Door(str(tmp_path))).write({GuestKey(1001, WEB.start_ticks)})
    assert {"switched_off", "not_mergeable"} & on_tree(tmp_path)[1].keys() == {"switched_off"}


def test_a_host_that_is_well_exits_with_0(tmp_path: Path) -> None:
    well_tree(tmp_path)
    exit_code, found = on_tree(tmp_path)
    assert (exit_code, set(found)) == (0, {"reports_free_pages"})
    assert said(tmp_path).startswith(
        "nothing found that keeps memory from merging\nnote: web: memory that it frees comes"
    )


def test_json_has_what_a_program_wants(tmp_path: Path) -> None:
    well_tree(tmp_path, run=0)
    _, found = on_tree(tmp_path)
    wanted = {"code", "severity", "guest", "sentence", "evidence", "mend", "reason"}
    assert all(each.keys() == wanted for same in found.values() for each in same)
    assert found["ksm_off"][0]["guest"] == ""


def test_on_a_kernel_without_ksm_guests_and_swap_are_looked_at(tmp_path: Path) -> None:
    well_tree(tmp_path, replace(WEB, command=(*QEMU, "-device", "virtio-balloon")))
    put(tmp_path, "proc/swaps", None)
    shutil.rmtree(tmp_path / "sys/kernel/mm/ksm")
    (tmp_path / "config.toml").write_text('[daemon]\nbackend = "scan"\n')
    wanted = ("--config", str(tmp_path / "config.toml"), "web")
    exit_code, found = on_tree(tmp_path, *wanted)
    assert (exit_code, set(found)) == (1, {"ksm_absent", "zeros_refused", "no_free_page_reporting"})
    assert "packaging/zram.md" in found["zeros_refused"][0]["mend"]
    put(tmp_path, "proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 1000 0 100\n")
    assert on_tree(tmp_path, *wanted)[0] == 0


def test_a_container_that_does_not_show_the_kernels_files_is_told_of(tmp_path: Path) -> None:
    well_tree(tmp_path)
    shutil.rmtree(tmp_path / "sys/kernel")
    exit_code, found = on_tree(tmp_path)
    assert exit_code == 1
    assert found["ksm_absent"][0]["sentence"] == "whether this kernel has KSM cannot be told from here"
    assert "mount the host's" in found["ksm_absent"][0]["mend"]


def _two_nodes_apart(root: Path) -> None:
    for node in ("node0", "node1"):
        put(root, f"sys/devices/system/node/{node}/cpulist", "0\n")
    put(root, "sys/kernel/mm/ksm/merge_across_nodes", "0\n")


def _full_slice(root: Path) -> None:
    put(root, "proc/1001/cgroup", "0::/machine.slice/machine-qemu.scope\n")
    put(root, "sys/fs/cgroup/machine.slice/memory.max", "max\n")
    put(root, "sys/fs/cgroup/machine.slice/memory.high", "1000000\n")
    put(root, "sys/fs/cgroup/machine.slice/memory.current", "990000\n")
    put(root, "sys/fs/cgroup/machine.slice/memory.stat", "anon 1\nactive_file 5000\ninactive_file 5000\n")


def _smaps(*mappings: str) -> Callable[[Path], None]:
    return lambda root: put(root, "proc/1001/smaps", "".join(mappings))


BREAK: dict[str, Callable[[Path], None]] = {
    "ksm_absent": lambda root: shutil.rmtree(root / "sys/kernel/mm/ksm"),
    "ksm_off": lambda root: put(root, "sys/kernel/mm/ksm/run", "0\n"),
    "advisor_on": lambda root: put(root, "sys/kernel/mm/ksm/advisor_mode", "none [scan-time]\n"),
    "foreign_service": lambda root: put(root, "sys/fs/cgroup/system.slice/ksmtuned.service/cgroup.procs", "1\n"),
    "psi_off": lambda root: put(root, "proc/pressure/memory", None),
    "not_mergeable": lambda root: put(root, "proc/1001/ksm_stat", NOT_ASKED),
    "shared": _smaps(mapping("sh", mode="rw-s", path="/memfd:ram")),
    "hugetlb": _smaps(mapping("ht", mode="rw-s", path="/dev/hugepages/ram")),
    "merge_across_nodes": _two_nodes_apart,
    "cgroup_full": _full_slice,
}


@pytest.mark.parametrize("code", BREAK)
def test_causes_are_read_from_the_hosts_files_and_named_alone(code: str, tmp_path: Path) -> None:
    well_tree(tmp_path)
    BREAK[code](tmp_path)
    exit_code, found = on_tree(tmp_path)
    assert exit_code == 1
    assert {name for name, same in found.items() if same[0]["severity"] == "finding"} == {code}


def test_it_is_said_by_what_a_guest_was_found(tmp_path: Path) -> None:
    other = FakeGuest(pid=1002, name="", comm="netdata", command=("netdata",), rmap_items=90, merging_pages=80)
    well_tree(tmp_path, WEB, other)
    assert "\nlooked at 2 guests: 1 by program (web), 1 by asked (netdata-1002)\n" in said(tmp_path)
    assert said(tmp_path, "web").endswith("\nlooked at 1 guest: 1 by program (web)\n")
    done = verb("guests", "--json", "--root", tmp_path, "--runtime-dir", tmp_path / "none")
    assert [each["evidence"] for each in json.loads(done.stdout)] == [["program"], ["asked"]]


def test_page_cache_fills_no_cgroup(tmp_path: Path) -> None:
    well_tree(tmp_path)
    _full_slice(tmp_path)
    put(tmp_path, "sys/fs/cgroup/machine.slice/memory.stat", "anon 1\nactive_file 100000\ninactive_file 100000\n")
    assert on_tree(tmp_path)[0] == 0


def test_an_old_service_is_found_by_its_process(tmp_path: Path) -> None:
    old = FakeGuest(pid=1002, name="", comm="ksmtuned", command=("/bin/bash", "/usr/sbin/ksmtuned"), mergeable=False)
    well_tree(tmp_path, WEB, old)
    put(tmp_path, "proc/1002/cgroup", "0::/system.slice/ksm-control-daemon.service\n")
    exit_code, found = on_tree(tmp_path)
    assert exit_code == 1
    assert found["foreign_writer"][0]["mend"] == "systemctl disable --now ksm-control-daemon.service"


def swapped(root: Path, guests: int) -> None:
    """Make a host of 64 GiB whose guests are in swap, and therefore lose."""
    command = (*QEMU, *REPORTING)
    many = [
        FakeGuest(
            pid=1001 + n,
            name=f"vm-{n}",
            rss_pages=2 * GIB // 4096,
            rmap_items=10**6,
            merging_pages=100,
            command=tuple(word.replace("web", f"vm-{n}") for word in command),
        )
        for n in range(guests)
    ]
    well_tree(root, *many)
    memory = meminfo(total_bytes=64 * GIB, SwapTotal=64 * GIB // 1024, SwapFree=4 * GIB // 1024)
    put(root, "proc/meminfo", memory)
    for guest in many:
        put(root, f"proc/{guest.pid}/smaps", mapping("mg", size_bytes=8 * GIB, Rss=2 * GIB, Swap=6 * GIB))


def test_guests_in_swap_lose_by_that_and_it_is_told_once(tmp_path: Path) -> None:
    swapped(tmp_path, 16)
    exit_code, found = on_tree(tmp_path)
    assert (exit_code, set(found)) == (1, {"in_swap", "swap_full", "reports_free_pages"})
    assert [each["evidence"][:24] for each in found["in_swap"]] == ["6 of 8 GiB are in swap, "] * 16
    assert "94 % of swap is used" in found["swap_full"][0]["evidence"]
    text = said(tmp_path)
    assert text.count("[in_swap]") == 1
    assert "16 guests (vm-0, vm-1, vm-2 and 13 more): much of its memory is in swap" in text


def test_swap_is_seen_where_smaps_are_not_ours_to_read(tmp_path: Path) -> None:
    swapped(tmp_path, 1)
    put(tmp_path, "proc/1001/smaps", None)
    status = (tmp_path / "proc/1001/status").read_text()
    put(tmp_path, "proc/1001/status", status.replace("Threads:", f"VmSwap:\t{6 * GIB // 1024} kB\nThreads:"))
    assert on_tree(tmp_path)[1]["in_swap"][0]["evidence"].startswith("6 of 8 GiB")


def with_process(root: Path, comm: str, cgroup: str) -> None:
    """Make a host on which nothing is wrong, with a program beside its guest."""
    well_tree(root, WEB, FakeGuest(pid=900, name="", comm=comm, command=(f"/usr/bin/{comm}",), mergeable=False))
    put(root, "proc/900/cgroup", f"0::{cgroup}\n")


@pytest.mark.parametrize(
    ("profile", "files", "exit_code"),
    [
        ("virtual-host", {}, 0),
        ("throughput-performance", {}, 0),
        ("", {}, 0),
        ("cpu-partitioning-powersave", {}, 1),
        ("realtime-virtual-host", {}, 1),
        ("mine", {"etc/tuned/mine/tuned.conf": "[main]\ninclude=cpu-partitioning\n"}, 1),
        ("mine", {"etc/tuned/profiles/mine/tuned.conf": "[sysfs]\n/sys/kernel/mm/ksm/run=0\n"}, 1),
        ("mine", {"etc/tuned/mine/tuned.conf": "[sysfs]\n# /sys/kernel/mm/ksm/run=0\n"}, 0),
        ("virtual-host mine", {"usr/lib/tuned/mine/script.sh": "start() {\n    disable_ksm\n}\n"}, 1),
        ("\0\0", {}, 0),
        ("../../etc/tuned/mine", {"etc/tuned/mine/tuned.conf": "[sysfs]\n/sys/kernel/mm/ksm/run=0\n"}, 0),
        ("a", {"etc/tuned/a/tuned.conf": "[main]\ninclude=b\n", "etc/tuned/b/tuned.conf": "[main]\ninclude = a\n"}, 0),
    ],
)
def test_tuned_is_judged_by_its_active_profile(
    profile: str, files: dict[str, str], exit_code: int, tmp_path: Path
) -> None:
    with_process(tmp_path, "tuned", "/system.slice/tuned.service")
    put(tmp_path, "etc/tuned/active_profile", f"{profile}\n")
    for path, text in files.items():
        put(tmp_path, path, text)
    done, found = on_tree(tmp_path)
    assert (done, "foreign_writer" in found) == (exit_code, bool(exit_code))
    assert "systemctl disable --now tuned" not in json.dumps(found)


@pytest.mark.parametrize(
    ("comm", "cgroup", "words"),
    [
        ("virt-handler", "/kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope", "ksmConfiguration"),
        ("harvester-node-", "/kubepods.slice/kubepods-pod1.slice/cri-containerd-3.scope", "ksmtuneds"),
        ("momd", "/system.slice/mom-vdsm.service", "settings of its cluster"),
    ],
)
def test_managers_with_a_setting_are_notes_with_that_setting(
    comm: str, cgroup: str, words: str, tmp_path: Path
) -> None:
    with_process(tmp_path, comm, cgroup)
    if comm == "harvester-node-":
        put(tmp_path, "proc/900/cmdline", "harvester-node-manager\0start\0")
    exit_code, found = on_tree(tmp_path)
    assert exit_code == 0
    assert words in found["possible_writer"][0]["mend"]
    assert "systemctl" not in found["possible_writer"][0]["mend"]


def test_passes_without_anybody_are_told_of_with_what_to_do(tmp_path: Path) -> None:
    make_fake_tree(tmp_path, kernel="6.1", guests=[], run=1, full_scans=12028)
    exit_code, found = on_tree(tmp_path)
    assert (exit_code, set(found)) == (1, {"nobody"})
    assert "after 12,028 passes nothing is tracked" in found["nobody"][0]["evidence"]
    assert "name_patterns" in found["nobody"][0]["mend"]


def test_an_empty_host_at_rest_is_no_fault_but_is_said(tmp_path: Path) -> None:
    make_fake_tree(tmp_path, guests=[])
    exit_code, found = on_tree(tmp_path)
    assert (exit_code, set(found), found["nobody"][0]["severity"]) == (0, {"nobody"}, "note")


def test_pages_of_nobody_known_are_told_of(tmp_path: Path) -> None:
    make_fake_tree(tmp_path, guests=[], files={"proc/meminfo": meminfo(**SWAP)}, run=1, pages_unshared=1024)
    exit_code, found = on_tree(tmp_path)
    assert (exit_code, set(found)) == (1, {"unknown_sharers"})


def test_shared_memory_is_the_cause_and_not_that_nobody_asked(tmp_path: Path) -> None:
    shared = replace(CLOUD, command=("cloud-hypervisor", "--memory", "size=1G,mergeable=on,shared=on"), mergeable=False)
    well_tree(tmp_path, shared)
    put(tmp_path, "proc/1001/smaps", mapping("sh", mode="rw-s", path="/memfd:ch_ram"))
    exit_code, found = on_tree(tmp_path)
    assert (exit_code, set(found)) == (1, {"shared", "no_balloon"})
    assert "without shared=on" in found["shared"][0]["mend"]


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "6.18"])
def test_cloud_hypervisor_is_asked_to_merge_in_its_own_words(kernel: Any, tmp_path: Path) -> None:
    make_fake_tree(tmp_path, kernel=kernel, guests=[replace(CLOUD, mergeable=False)], run=1)
    put(tmp_path, "proc/1001/smaps", mapping())
    _, found = on_tree(tmp_path)
    assert "mergeable=on" in found["not_mergeable"][0]["mend"]
    assert "exec" not in found["not_mergeable"][0]["mend"]


@pytest.mark.parametrize(
    ("library", "words"),
    [
        ("usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so", "here is 252"),
        ("usr/lib/systemd/libsystemd-shared-255.4-1.fc40.so", "here is 255"),
        ("usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so", "or with MemoryKSM=yes"),
    ],
)
def test_the_systemd_is_looked_for(library: str, words: str, tmp_path: Path) -> None:
    fire = FakeGuest(pid=1001, name="", comm="firecracker", command=("firecracker", "--id", "f"), mergeable=False)
    well_tree(tmp_path, fire)
    put(tmp_path, library, "")
    assert words in on_tree(tmp_path)[1]["not_mergeable"][0]["mend"]


QEMU_OPTIONS = [
    ("sev-snp-guest,id=sev0,cbitpos=51", "-object", "encrypted"),
    ('{"qom-type":"tdx-guest","id":"lsec0"}', "-object", "encrypted"),
    ("s390-ccw-virtio,confidential-guest-support=pv0", "-machine", "encrypted"),
    ("vfio-pci,host=0000:01:00.0", "-device", "vfio"),
    ('{"driver":"vfio-pci","host":"0000:01:00.0"}', "-device", "vfio"),
    ('{"type":"vhost-vdpa","vhostdev":"/dev/fdset/0"}', "-netdev", "vdpa"),
    ('{"driver":"nvme","device":"0000:02:00.0","namespace":1}', "-blockdev", "nvme"),
    ("file=nvme://0000:02:00.0/1,if=none", "-drive", "nvme"),
    ("q35,mem-merge=off", "-machine", "nosharepages"),
]


@pytest.mark.parametrize(("value", "option", "code"), QEMU_OPTIONS)
def test_what_qemus_command_line_says_against_merging(value: str, option: str, code: str, tmp_path: Path) -> None:
    well_tree(tmp_path, replace(WEB, command=(*WEB.command, option, value), rmap_items=900, merging_pages=0))
    _, found = on_tree(tmp_path)
    assert set(found) == {code, "reports_free_pages"}


def test_devices_from_a_file_are_read(tmp_path: Path) -> None:
    well_tree(tmp_path, replace(WEB, command=(*QEMU, "-readconfig", "/etc/vm/web.cfg")))
    assert "no_balloon" not in on_tree(tmp_path)[1]
    put(tmp_path, "proc/1001/root/etc/vm/web.cfg", '[memory]\n  size = "1024"\n')
    assert "no_balloon" in on_tree(tmp_path)[1]
    config = '[device "b"]\n  driver = "virtio-balloon-pci"\n  free-page-reporting = "on"\n[device "v"]\n  host = "1"\n'
    put(tmp_path, "proc/1001/root/etc/vm/web.cfg", config + '  driver = "vfio-pci"\n')
    assert {"reports_free_pages", "vfio"} <= set(on_tree(tmp_path)[1])


@pytest.mark.parametrize(
    "command",
    [
        ("cloud-hypervisor", "--api-socket", "/run/ch/web.sock"),
        ("qemu-system-x86_64", "-readconfig", "machine.cfg", "-qmp", "unix:/run/q"),
        ("qemu-system-x86_64", "-S", "-qmp", "unix:/run/q,server"),
    ],
)
def test_of_devices_that_come_over_an_api_nothing_is_said(command: tuple[str, ...], tmp_path: Path) -> None:
    comm = "cloud-hyperviso" if command[0].startswith("cloud") else "qemu-system-x86"
    well_tree(tmp_path, FakeGuest(pid=1001, name="", comm=comm, rmap_items=90, merging_pages=80, command=command))
    assert on_tree(tmp_path) == (0, {})


def test_uksm_is_named_where_it_is_in_charge(tmp_path: Path) -> None:
    well_tree(tmp_path)
    shutil.rmtree(tmp_path / "sys/kernel/mm/ksm")
    put(tmp_path, "sys/kernel/mm/uksm/run", "1\n")
    exit_code, found = on_tree(tmp_path)
    assert (exit_code, set(found)) == (1, {"uksm", "reports_free_pages"})


def accepting(root: Path, *tables: str) -> tuple[str, str]:
    """The arguments that name a configuration with these tables of accepted findings."""
    put(root, "accept.toml", "".join(f"[[doctor.accept]]\n{table}\n" for table in tables))
    return "--config", str(root / "accept.toml")


def test_what_is_wanted_so_does_not_count(tmp_path: Path) -> None:
    well_tree(tmp_path)
    put(tmp_path, "proc/meminfo", meminfo())
    _two_nodes_apart(tmp_path)
    assert on_tree(tmp_path)[0] == 1
    accept = accepting(
        tmp_path, 'code = "swap_off"\nreason = "kubelet"', 'code = "merge_across_nodes"\nreason = "NUMA"'
    )
    exit_code, found = on_tree(tmp_path, *accept)
    assert (exit_code, set(found)) == (0, {"reports_free_pages"})
    _, found = on_tree(tmp_path, *accept, "--all")
    assert (found["swap_off"][0]["severity"], found["swap_off"][0]["reason"]) == ("accepted", "kubelet")
    assert said(tmp_path, *accept).endswith("accepted: 2, shown by --all\n")
    assert "wanted so: NUMA" in said(tmp_path, *accept, "--all")


def test_what_is_accepted_in_one_guest_counts_in_another(tmp_path: Path) -> None:
    well_tree(tmp_path, WEB, replace(WEB, pid=1002, command=("qemu-system-x86_64", "-name", "db", *REPORTING)))
    for pid in (1001, 1002):
        put(tmp_path, f"proc/{pid}/ksm_stat", NOT_ASKED)
    accept = accepting(tmp_path, 'code = "not_mergeable"\nguest = "d*"\nreason = "database"')
    exit_code, found = on_tree(tmp_path, *accept)
    assert (exit_code, [each["guest"] for each in found["not_mergeable"]]) == (1, ["web"])


def test_a_code_that_there_is_not_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    well_tree(tmp_path)
    accept = accepting(tmp_path, 'code = "swapoff"\nreason = "x"')
    done = verb("doctor", "--root", tmp_path, *accept)
    assert done.returncode == 2
    assert "accept.toml:2: doctor.accept[0].code" in done.stderr
    assert "a code that ksmtuned-py doctor prints" in done.stderr


def test_a_kernel_of_today_is_not_found_fault_with_for_its_age(tmp_path: Path) -> None:
    make_fake_tree(tmp_path, kernel="6.1", guests=[WEB], files={"proc/meminfo": meminfo(**SWAP)}, run=1)
    exit_code, found = on_tree(tmp_path)
    assert (exit_code, found["old_kernel"][0]["severity"]) == (0, "note")


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


def test_fleets_call_their_guests_as_they_do(tmp_path: Path) -> None:
    uuid = "0C5F4B6E-6EF0-4D2C-9D3B-6F0A5AD1A111"
    proxmox = ("/usr/bin/kvm", "-id", "102", "-name", "web,debug-threads=on", "-smbios", f"type=1,uuid={uuid}")
    sockets = [("cloud-hypervisor", "--api-socket", f"/run/{place}/ch-one.sock") for place in ("aa11", "bb22")]
    guests = [replace(WEB, comm="kvm", command=proxmox)]
    guests += [replace(CLOUD, pid=1002 + number, command=command) for number, command in enumerate(sockets)]
    well_tree(tmp_path, *guests)
    for word in ("web", "102", "1001", uuid, uuid.lower(), "ch-one-1002", "ch-one-1003"):
        assert called(tmp_path, "--json", word)[0] == 0, word
    with pytest.raises(AssertionError, match="several guests have that name"):
        called(tmp_path, "ch-one")
