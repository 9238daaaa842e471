"""A real libvirtd in a mount namespace of its own, so that the machine's own one, if there is one, is left alone.

Its domains run without KVM, kernel and disk: their memory holds a block that is equal in all, and one of their own.
"""

import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from ksmtuned_py.units import MIB
from tests.support.need import need
from tests.support.process import end_all, wait_for

PLACES = {"etc": "/etc/libvirt", "run": "/run/libvirt", "lib": "/var/lib/libvirt", "log": "/var/log/libvirt"}
QEMU_CONF = 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nremember_owner = 0\n'
MEMORY_MIB = 64
EQUAL_AT, OWN_AT = 16 * MIB, 36 * MIB
"""Places out of the way of the firmware, which writes to 33 pages around 47 MiB."""
EQUAL_BYTES, OWN_BYTES = 16 * MIB, 4 * MIB
PAGE_BYTES = 4096

# libvirtd waits until the QEMUs that it ends are gone for good, and they are orphans: somebody has to wait for them.
HOLDER = """\
import ctypes, os, subprocess, sys, threading, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
subprocess.Popen(["virtlogd", "-p", sys.argv[1] + "/virtlogd.pid"])
def reap():
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.02)
threading.Thread(target=reap, daemon=True).start()
for line in sys.stdin:
    print(subprocess.Popen(["libvirtd", "-p", sys.argv[1] + "/libvirtd.pid"]).pid, flush=True)
"""

DOMAIN = """\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>{memory_mib}</memory><vcpu>1</vcpu>
  <memoryBacking><allocation mode='immediate'/>{backing}</memoryBacking>
  <metadata><ksmtuned:tag xmlns:ksmtuned='urn:ksmtuned-py'>{tag}</ksmtuned:tag></metadata>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><memballoon model='none'/>{devices}</devices>
  <qemu:commandline>
    <qemu:arg value='-device'/><qemu:arg value='loader,file={equal},addr={equal_at},force-raw=on'/>
    <qemu:arg value='-device'/><qemu:arg value='loader,file={own},addr={own_at},force-raw=on'/>
  </qemu:commandline>
</domain>
"""


class Domain:
    """A running domain."""

    def __init__(self, name: str, identity: str, pid: int, blocks: bytes) -> None:
        self.name = name
        self._blocks = blocks
        self.uuid = identity
        self.pid = pid

    def ram(self) -> tuple[int, bool]:
        """Returns where its memory begins in QEMU, and whether smaps lets it merge; uses nothing of ksmtuned_py."""
        smaps = Path(f"/proc/{self.pid}/smaps").read_text()
        for block in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps, flags=re.MULTILINE):
            if re.search(rf"^Size: +{MEMORY_MIB * 1024} kB", block, re.MULTILINE):
                flags = next(line for line in block.splitlines() if line.startswith("VmFlags:")).split()
                return int(block.partition("-")[0], 16), "mg" in flags
        raise AssertionError(f"{self.name} has no mapping of {MEMORY_MIB} MiB")

    def intact(self, begin: int | None = None) -> bool:
        """Whether its two blocks are in its memory as they were put there; `begin` is for a remapped one."""
        begin = begin or self.ram()[0]
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            equal = os.pread(memory.fileno(), EQUAL_BYTES, begin + EQUAL_AT)
            return equal + os.pread(memory.fileno(), OWN_BYTES, begin + OWN_AT) == self._blocks

    def merging_pages(self) -> int:
        """Returns the merging pages that its ksm_stat says."""
        found = re.search(r"ksm_merging_pages (\d+)", Path(f"/proc/{self.pid}/ksm_stat").read_text())
        assert found
        return int(found[1])


class Libvirtd:
    """A libvirtd that can be killed and started again, with its domains."""

    def __init__(self, directory: Path, holder: "subprocess.Popen[str]") -> None:
        self.directory = directory
        self.socket = directory / "run" / "libvirt-sock"
        self.uri = f"qemu+unix:///system?socket={self.socket}"
        self._holder = holder
        self._process: psutil.Process | None = None

    @property
    def pid(self) -> int:
        """The process's ID."""
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Starts it, and returns when it answers."""
        assert self._holder.stdin
        assert self._holder.stdout
        self._holder.stdin.write("start\n")
        self._holder.stdin.flush()
        self._process = psutil.Process(int(self._holder.stdout.readline()))
        wait_for(lambda: self._virsh("uri").returncode == 0, 30.0, "answer from libvirtd", every_seconds=0.05)

    def kill(self) -> None:
        """Kills it; its domains live on."""
        if self._process and self._process.is_running():  # somebody who ends all children may have been here before
            end_all([self._process])
        self._process = None

    def create(self, name: str, *, tag: str = "", backing: str = "", devices: str = "") -> Domain:
        """Starts a domain; one of its two blocks is the same in all."""
        identity = str(uuid.uuid4())
        blocks = {
            f"{name}.equal": _block(b"equal", EQUAL_BYTES),
            f"{name}.own": _block(name.encode(), OWN_BYTES),
        }
        for file, data in blocks.items():
            (self.directory / file).write_bytes(data)
        xml = self.directory / f"{name}.xml"
        xml.write_text(
            DOMAIN.format(
                name=name,
                uuid=identity,
                memory_mib=MEMORY_MIB,
                backing=backing,
                devices=devices,
                tag=tag,
                equal=self.directory / f"{name}.equal",
                equal_at=EQUAL_AT,
                own=self.directory / f"{name}.own",
                own_at=OWN_AT,
            )
        )
        done = self._virsh("create", str(xml))
        assert done.returncode == 0, done.stderr
        pid = int((self.directory / "run" / "qemu" / f"{name}.pid").read_text())
        return Domain(name, identity, pid, b"".join(blocks.values()))

    def destroy(self, name: str) -> None:
        """Ends a domain."""
        done = self._virsh("destroy", name)
        assert done.returncode == 0, done.stderr

    def virsh(self, *arguments: str) -> str:
        """Returns what a command of virsh prints."""
        done = self._virsh(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def tag(self, name: str, tag: str) -> None:
        """Changes a running domain's metadata."""
        element = f"<tag>{tag}</tag>"
        done = self._virsh("metadata", name, "urn:ksmtuned-py", "--key", "ksmtuned", "--set", element, "--live")
        assert done.returncode == 0, done.stderr

    def end(self) -> None:
        """Ends it and all its domains."""
        self.kill()
        for file in (self.directory / "run" / "qemu").glob("*.pid"):
            with suppress(psutil.NoSuchProcess, ValueError):
                end_all([psutil.Process(int(file.read_text()))])
        shutil.rmtree(self.directory / "run" / "qemu", ignore_errors=True)

    def _virsh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["virsh", "--quiet", "--connect", self.uri, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@contextmanager
def libvirt_place(directory: Path) -> Iterator[Libvirtd]:
    """Yields where libvirtd can be started: its directories, and a virtlogd for its domains' output."""
    need(os.geteuid() == 0, "root, to start libvirtd")
    for program in ("libvirtd", "virtlogd", "virsh", "qemu-system-x86_64", "unshare", "nsenter"):
        need(shutil.which(program) is not None, program)
    for name in PLACES:
        (directory / name).mkdir()
    (directory / "etc" / "qemu.conf").write_text(QEMU_CONF)
    binds = "".join(f"mkdir -p {to} && mount --bind {directory / name} {to} && " for name, to in PLACES.items())
    command = ["unshare", "--mount", "sh", "-c", f'{binds}exec "$0" "$@"', sys.executable, "-c", HOLDER, str(directory)]
    with (
        (directory / "libvirtd.log").open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as holder,
    ):
        try:
            wait_for((directory / "run" / "virtlogd-sock").exists, 10.0, "virtlogd's socket")
            yield Libvirtd(directory, holder)
        finally:
            end_all([*psutil.Process(holder.pid).children(recursive=True), psutil.Process(holder.pid)])


def _block(seed: bytes, size: int) -> bytes:
    """Returns pages that differ from each other, and from those of another seed."""
    words = (seed + b"-%d-" % page for page in range(size // PAGE_BYTES))
    return b"".join(word * (PAGE_BYTES // len(word)) + word[: PAGE_BYTES % len(word)] for word in words)
