"""Guests are found by evidence, and the evidence is told."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest

from ksmtuned_py.cli.main import main
from ksmtuned_py.door import Door
from ksmtuned_py.guests.discovery import GuestFinder
from ksmtuned_py.guests.evidence import Clue, in_machine, is_flagged, kind_by_clue, speaks_of_a_guest
from ksmtuned_py.guests.patience import Patience
from ksmtuned_py.guests.process import ProcessFiles
from ksmtuned_py.guests.slowlooks import FIRST_SECONDS, MOST_SECONDS, SHARE, SlowLooks
from ksmtuned_py.model import Guest
from ksmtuned_py.units import GIB, MIB
from tests.support.need import need
from tests.support.process import wait_for
from tests.support.trees import FakeGuest, KernelVersion, make_fake_tree, mapping, meminfo, put

UUID = "0c5f4b6e-6ef0-4d2c-9d3b-6f0a5ad1a11"
PLAIN = FakeGuest(pid=1001, name="", comm="netdata", command=("/usr/sbin/netdata", "-D"), mergeable=False)


def found(root: Path, **keys: object) -> list[tuple[str, str, tuple[str, ...]]]:
    """The name, kind and evidence of each guest that one look finds."""
    with closing(GuestFinder(Door(str(root)), **keys)) as finder:  # type: ignore[arg-type]  # what the finder takes
        return [(guest.name, guest.kind, guest.evidence) for guest in finder.find(0.0)]


def decided(root: Path) -> dict[str, Any]:
    """The status that a daemon would have on this tree."""
    output = StringIO()
    with redirect_stdout(output):
        assert main(["status", "--json", "--root", str(root), "--runtime-dir", str(root / "none")]) == 0
    status: dict[str, Any] = json.loads(output.getvalue())
    return status


def opennebula(root: Path, kernel: KernelVersion = "6.12") -> None:
    """Make a host of 16 GiB with 2 available, and three guests whose program is a symlink to QEMU."""
    guests = [
        FakeGuest(
            pid=1001 + number,
            name="",
            comm="qemu-kvm-one",
            command=(
                "/usr/bin/qemu-kvm-one",
                "-name",
                f"guest=one-{number},debug-threads=on",
                "-uuid",
                f"{UUID}{number}",
            ),
        )
        for number in range(3)
    ]
    make_fake_tree(root, kernel=kernel, guests=guests, files={"proc/meminfo": meminfo(available_bytes=2 * GIB)})
    for guest in guests:
        put(root, f"proc/{guest.pid}/smaps", mapping("mg", Rss=GIB))


def test_a_symlink_to_qemu_is_qemu_by_its_command_line(tmp_path: Path) -> None:
    opennebula(tmp_path)
    assert found(tmp_path) == [(f"one-{number}", "qemu", ("command line",)) for number in range(3)]
    status = decided(tmp_path)
    assert status["decision"]["mode"] == "boost"
    assert [guest["uuid"] for guest in status["snapshot"]["guests"]] == [f"{UUID}{number}" for number in range(3)]


@pytest.mark.parametrize("without", ["", "ksm_stat"])
def test_memory_that_may_merge_is_found_where_the_kernel_says_it_nowhere_else(without: str, tmp_path: Path) -> None:
    make_fake_tree(tmp_path, kernel="6.12", guests=[PLAIN], files={"proc/meminfo": meminfo(available_bytes=2 * GIB)})
    if without:  # before Linux 6.1
        put(tmp_path, f"proc/1001/{without}", None)
    assert found(tmp_path) == []
    put(tmp_path, "proc/1001/smaps", mapping() + mapping("mg", Rss=GIB))
    assert found(tmp_path) == [("netdata-1001", "mergeable", ("flag",))]
    assert decided(tmp_path)["decision"]["mode"] == "boost"


def test_pages_of_nobody_known_are_not_called_those_of_ended_guests(tmp_path: Path) -> None:
    make_fake_tree(tmp_path, kernel="6.1", guests=[], pages_sharing=60_000, pages_unshared=1000, run=1)
    assert (
        "61000 pages are tracked still, of ended ones or of some that nobody knows"
        in decided(tmp_path)["decision"]["reason"]
    )


def test_a_kernel_that_says_it_is_believed(tmp_path: Path) -> None:
    make_fake_tree(tmp_path, kernel="6.18", guests=[PLAIN])
    put(tmp_path, "proc/1001/smaps", mapping("mg"))
    assert found(tmp_path) == []
    assert found(make_fake_tree(tmp_path, guests=[replace(PLAIN, mergeable=True)])) == [
        ("netdata-1001", "mergeable", ("asked",))
    ]


def test_who_loses_the_flag_is_no_guest_any_more(tmp_path: Path) -> None:
    make_fake_tree(tmp_path, kernel="6.12", guests=[PLAIN])
    put(tmp_path, "proc/1001/smaps", mapping("mg"))
    with closing(GuestFinder(Door(str(tmp_path)))) as finder:
        for now in (0.0, 1.0, 61.0, 121.0):
            assert len(finder.find(now)) == 1
        put(tmp_path, "proc/1001/smaps", mapping())
        assert [len(finder.find(now)) for now in (122.0, 182.0)] == [1, 0]


def test_where_only_hypervisors_are_wanted_a_flag_is_no_evidence(tmp_path: Path) -> None:
    make_fake_tree(tmp_path, kernel="6.12", guests=[PLAIN])
    put(tmp_path, "proc/1001/smaps", mapping("mg"))
    assert found(tmp_path, mergeable=False) == []
    _holds(tmp_path, "anon_inode:kvm-vm")
    assert found(tmp_path, mergeable=False) == [("netdata-1001", "vm", ("kvm",))]


def _holds(root: Path, link: str) -> None:
    (root / "proc/1001/fd").mkdir()
    (root / "proc/1001/fd/3").symlink_to("/dev/null")
    (root / "proc/1001/fd/12").symlink_to(link)


@pytest.mark.parametrize(
    ("link", "kind"), [("anon_inode:kvm-vm", "vm"), ("anon_inode:[kvm-vcpu:0]", "vm"), ("/dev/kvm", None)]
)
def test_who_holds_a_virtual_machine_is_a_guest(link: str, kind: str | None, tmp_path: Path) -> None:
    make_fake_tree(tmp_path, guests=[PLAIN])
    _holds(tmp_path, link)  # libvirtd, too, has /dev/kvm open, to ask what it can do
    assert found(tmp_path) == ([("netdata-1001", kind, ("kvm",))] if kind else [])


def _put_into_a_machine(root: Path) -> None:
    put(root, "proc/1001/cgroup", "0::/machine.slice/machine-qemu\\x2d3\\x2dweb.scope/libvirt/emulator\n")


def _put_into_a_machine_of_old(root: Path) -> None:
    put(root, "proc/1001/cgroup", "9:memory:/machine.slice/machine-qemu\\x2d3\\x2dweb.scope\n1:cpu:/\n0::/\n")


def _put_into_proxmox(root: Path) -> None:
    put(root, "proc/1001/cgroup", "0::/qemu.slice/102.scope\n")


def _put_into_libvirts_files(root: Path) -> None:
    put(root, "run/libvirt/qemu/web.pid", "1001\n")
    put(root, "run/libvirt/qemu/odd.pid", "many\n")


@pytest.mark.parametrize(
    ("how", "evidence"),
    [
        (_put_into_a_machine, "machine"),
        (_put_into_a_machine_of_old, "machine"),
        (_put_into_proxmox, "machine"),
        (_put_into_libvirts_files, "libvirt"),
    ],
)
def test_who_is_a_domain_is_a_guest_whatever_it_is_called(
    how: Callable[[Path], None], evidence: str, tmp_path: Path
) -> None:
    make_fake_tree(tmp_path, guests=[PLAIN])
    how(tmp_path)
    assert found(tmp_path) == [("netdata-1001", "qemu", (evidence,))]


def test_whoever_may_not_see_libvirts_files_does_without(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "root, to become somebody else")
    tmp_path.chmod(0o700)
    os.seteuid(65534)
    try:
        assert Door(str(tmp_path)).names("run/libvirt/qemu") == Door(str(tmp_path)).names("") == []
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        (r"/machine.slice/machine-qemu\x2d3\x2dweb.scope", True),
        (r"/production.slice/production-a.slice/machine-qemu\x2d3\x2dweb.scope/libvirt/vcpu0", True),
        ("/machine/qemu-3-web.libvirt-qemu/emulator", True),  # without systemd
        ("/qemu.slice/102.scope", True),
        # A user, or whoever is in a container, can make cgroups of any name below their own unit.
        (r"/user.slice/user-1000.slice/user@1000.service/machine-qemu\x2d3\x2dweb.scope", False),
        (r"/user.slice/user-1000.slice/user@1000.service/a.slice/machine-qemu\x2d3\x2dweb.scope", False),
        (r"/machine.slice/libpod-1.scope/machine.slice/machine-qemu\x2d3\x2dweb.scope", False),
        ("/system.slice/a.service/qemu.slice/102.scope", False),
        ("/kubepods.slice/machine/qemu-3-web.libvirt-qemu", False),
    ],
)
def test_a_machines_cgroup_is_one_that_only_root_can_make(path: str, is_one: bool) -> None:
    assert in_machine(f"0::{path}") is is_one
    assert in_machine(f"9:memory:{path}\n1:cpu:/\n0::/") is is_one
    assert in_machine(path) is is_one


@pytest.mark.parametrize("comm", ["virtiofsd", "swtpm", "passt.avx2", "qemu-storage-da"])
def test_the_helpers_of_a_machine_are_no_guests(comm: str, tmp_path: Path) -> None:
    make_fake_tree(tmp_path, guests=[replace(PLAIN, comm=comm, command=(f"/usr/libexec/{comm}",))])
    _put_into_a_machine(tmp_path)
    assert found(tmp_path) == []


def test_who_starts_qemu_is_not_qemu(tmp_path: Path) -> None:
    qemu = ("/usr/bin/qemu-kvm-one", "-name", "guest=web", "-uuid", UUID)
    sudo = replace(PLAIN, comm="sudo", command=("sudo", "-u", "oneadmin", *qemu), rss_pages=1000)
    make_fake_tree(tmp_path, guests=[sudo])
    with closing(GuestFinder(Door(str(tmp_path)))) as finder:
        assert finder.find(0.0) == ()
        make_fake_tree(tmp_path, guests=[replace(sudo, rss_pages=2 * GIB // 4096)])  # its memory is there by now
        assert [guest.name for guest in finder.find(1.0)] == ["web"]


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        (f"emulator -name guest=web -uuid {UUID}", True),
        ("kvm-patched -smbios type=1 -m 1024", True),
        ("find / -name x", False),
        ("virt-install --name web --uuid u", False),
        ("emulator -m 1024 -cpu host", False),
        ("-name -uuid", False),
        ("", False),
    ],
)
def test_a_command_line_of_qemus(line: str, is_one: bool) -> None:
    assert speaks_of_a_guest(line.split()) is is_one


def test_a_small_process_in_a_machine_is_none() -> None:
    clue = Clue(["x"], cgroups="0::/machine.slice/machine-qemu-1-web.scope", resident_bytes=10 * MIB)
    assert kind_by_clue("dbus-daemon", clue) == (None, ())


def test_the_flag_is_looked_for_among_flags() -> None:
    assert is_flagged(mapping() + mapping("mg"))
    assert not is_flagged(mapping(path="/tmp/ mg ") + mapping())


class Meter:
    """Tells CPU time: so much for each look on its thread, and for what is done around it on ours."""

    def __init__(self, seconds_each: float, around_seconds: float = 0.0) -> None:
        self.seconds_each = seconds_each
        self.around_seconds = around_seconds
        self._of_thread = threading.local()

    def __call__(self) -> float:
        """The CPU seconds of this thread, which pass with every second call."""
        calls = self._of_thread.calls = getattr(self._of_thread, "calls", 0) + 1
        ours = threading.current_thread() is threading.main_thread()
        return float(calls // 2 * (self.around_seconds if ours else self.seconds_each))


def test_slow_looks_take_no_more_than_their_share_of_a_core(tmp_path: Path) -> None:
    crowd = [replace(PLAIN, pid=2000 + number) for number in range(300)]
    make_fake_tree(tmp_path, kernel="6.12", guests=crowd)
    looks, seconds = SlowLooks(Door(str(tmp_path)), 4096, Meter(0.02)), 600
    seen: set[int] = set()
    for now in range(seconds):
        if now % 60 == 0:
            looks.queue(guest.pid for guest in crowd)
        seen |= looks.look(float(now), lambda _: True).keys()
    assert FIRST_SECONDS < looks.spent_seconds <= FIRST_SECONDS + seconds * SHARE + 0.02
    assert len(seen) == pytest.approx(looks.spent_seconds / 0.02, abs=2)  # nobody twice


def test_what_is_done_around_the_looks_is_on_the_same_account(tmp_path: Path) -> None:
    make_fake_tree(tmp_path, kernel="6.12", guests=[PLAIN])
    looks, seconds = SlowLooks(Door(str(tmp_path)), 4096, Meter(0.0, around_seconds=0.01)), 600
    for now in range(seconds):
        looks.queue([PLAIN.pid])
        looks.look(float(now), lambda _: True)
    queued, looked = seconds * 0.01, FIRST_SECONDS / 2  # then nothing is left for looks
    assert looks.spent_seconds == pytest.approx(queued + looked, abs=0.02)


def test_no_more_is_saved_up_than_for_a_minute(tmp_path: Path) -> None:
    crowd = [replace(PLAIN, pid=2000 + number) for number in range(300)]
    make_fake_tree(tmp_path, kernel="6.12", guests=crowd)
    looks = SlowLooks(Door(str(tmp_path)), 4096, Meter(0.02))
    looks.queue(guest.pid for guest in crowd)
    looks.look(0.0, lambda _: True)
    assert len(looks.look(36_000.0, lambda _: True)) <= MOST_SECONDS / 0.02 + 1


def test_the_largest_are_looked_at_first(tmp_path: Path) -> None:
    crowd = [replace(PLAIN, pid=2000 + number, rss_pages=1000 + number) for number in range(50)]
    make_fake_tree(tmp_path, kernel="6.12", guests=crowd)
    looks = SlowLooks(Door(str(tmp_path)), 4096, Meter(FIRST_SECONDS / 1.9))
    looks.queue(guest.pid for guest in crowd)
    assert set(looks.look(0.0, lambda _: True)) == {2049, 2048}


VIRTUAL_MACHINE = "import fcntl, os; print(fcntl.ioctl(os.open('/dev/kvm', 2), 0xAE01, 0), flush=True); input()"


def of(finder: GuestFinder, pid: int) -> list[Guest]:
    """The guest with this PID, if it was found."""
    return [guest for guest in finder.find(0.0) if guest.pid == pid]


def test_a_real_virtual_machine_is_seen_by_its_descriptor() -> None:
    need(_can_make_one(), "/dev/kvm")
    with subprocess.Popen(
        [sys.executable, "-c", VIRTUAL_MACHINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        process.stdout.readline()
        with closing(GuestFinder(Door())) as finder:
            (one,) = of(finder, process.pid)
        process.communicate("\n")
    assert (one.kind, one.evidence) == ("vm", ("kvm",))


def _can_make_one() -> bool:
    try:
        device = os.open("/dev/kvm", os.O_RDWR)
        os.close(fcntl.ioctl(device, 0xAE01, 0))
        os.close(device)
    except OSError:
        return False
    return True


def test_a_real_qemu_under_another_name_is_found(tmp_path: Path) -> None:
    qemu = Path("/usr/bin/qemu-system-x86_64")
    need(qemu.exists(), "QEMU")
    (tmp_path / "emulator-one").symlink_to(qemu)
    command = [str(tmp_path / "emulator-one"), "-name", "guest=one-7,debug-threads=on", "-uuid", f"{UUID}7"]
    options = ["-m", "256", "-accel", "tcg", "-display", "none", "-nodefaults", "-no-user-config", "-S"]
    with subprocess.Popen([*command, *options]) as process:
        try:
            with closing(GuestFinder(Door())) as finder:
                wait_for(lambda: of(finder, process.pid), 20, "the guest", every_seconds=0.2)
                (one,) = of(finder, process.pid)
        finally:
            process.kill()
    assert (one.name, one.aliases, one.kind, one.evidence) == ("one-7", ("7",), "qemu", ("command line",))


def test_an_enrolled_program_is_found_by_what_it_asked() -> None:
    program = "import ctypes; print(ctypes.CDLL(None).prctl(67, 1, 0, 0, 0), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        need(process.stdout.readline() == "0\n", "a kernel with PR_SET_MEMORY_MERGE")
        with closing(GuestFinder(Door())) as finder:
            (one,) = of(finder, process.pid)
        flagged = Patience().ask(
            {process.pid: ProcessFiles(Door(), process.pid)}, lambda inside: is_flagged(inside.read("smaps") or "")
        )
        process.communicate("\n")
    assert one.evidence in (("asked",), ("flag",))  # by how much the kernel tells
    assert flagged == {process.pid: True}


def test_a_program_in_a_container_is_a_guest_like_any_other(tmp_path: Path) -> None:
    need(os.geteuid() == 0 and bool(shutil.which("systemd-nspawn")), "root, and systemd-nspawn (systemd-container)")
    program = "import ctypes; print(ctypes.CDLL(None).prctl(67, 1, 0, 0, 0), flush=True); input()"
    options = ["--quiet", "--register=no", "--keep-unit", "--private-network", "--volatile=yes", "--directory=/"]
    command = ["systemd-nspawn", *options, "--capability=CAP_SYS_RESOURCE", "--pipe", "/usr/bin/python3", "-c", program]
    environment = {**os.environ, "SYSTEMD_SECCOMP": "0"}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as nspawn:
        assert nspawn.stdout
        said = nspawn.stdout.readline()
        inside = {child.pid for child in psutil.Process(nspawn.pid).children(recursive=True)}
        with closing(GuestFinder(Door())) as finder:
            found_inside = [guest.evidence for guest in finder.find(0.0) if guest.pid in inside]
        nspawn.communicate("\n")
    need(said == "0\n", "a kernel with PR_SET_MEMORY_MERGE")
    assert found_inside in ([("asked",)], [("flag",)])  # by how much the kernel tells
