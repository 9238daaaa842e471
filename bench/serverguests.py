"""Debian servers under QEMU without KVM: PostgreSQL, MariaDB and nginx from a disk, and a memory full of files."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from xxhash import xxh3_64_intdigest

from bench.contents import HUGE_BYTES, Words
from bench.frontier import Contents
from ksmtuned_py.cli.workload import PAGE_BYTES
from ksmtuned_py.guests.mappings import Mapping
from ksmtuned_py.guests.smaps import parse_blocks
from ksmtuned_py.units import KIB
from tests.scan.diskguests import MODULES, module
from tests.support import qemu
from tests.support.debian import cached
from tests.support.process import wait_for

PACKAGES = ("nginx-light", "postgresql", "mariadb-server")
DISK_KIB = 4 << 20
"""The size of a disk. Its file is sparse, and no server writes to it."""
FULL = "the server is full"
FULL_SECONDS = 900.0
"""How long servers may take until they are full: one takes a minute on an idle core."""
FREE_PERCENT = 10
"""The free memory at which a server counts as full: the kernel keeps some 7 % free itself, to have huge pages."""
OWN_MIB = 16
ACCELERATOR = "tcg,tb-size=64"
"""Translated code would otherwise take up to 1 GiB, and more of it all the time, which would be missing in the gain."""
PRESENT_BIT, FRAME = np.uint64(63), np.uint64((1 << 55) - 1)
"""In an entry of /proc/PID/pagemap."""
INIT = f"""\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /disk
/bin/busybox --install -s /bin
mount -t devtmpfs devtmpfs /dev
{"; ".join(f"insmod /{name}.ko" for name in MODULES)}
ifconfig lo up
mount -t ext4 /dev/vda /disk
mount -t proc proc /disk/proc
mount -t sysfs sysfs /disk/sys
mount -o move /dev /disk/dev
mount -t tmpfs tmpfs /disk/run
mkdir /disk/dev/shm
mount -t tmpfs -o mode=1777 tmpfs /disk/dev/shm
cp /serve /disk/serve
exec switch_root /disk /bin/bash /serve < /disk/dev/ttyS0 > /disk/dev/ttyS0 2>&1
"""
SERVE = f"""\
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
stty -echo -onlcr
mkdir -p /run/lock
echo 127.0.0.1 localhost > /etc/hosts
for service in postgresql mariadb nginx; do
  /etc/init.d/$service start || echo "no $service"
done
find / -xdev -type f -exec cat {{}} + > /dev/null 2>&1
free_percent() {{ awk '/^MemTotal/ {{ total = $2 }} /^MemFree/ {{ print int(100 * $2 / total) }}' /proc/meminfo; }}
mkdir /own
while test $((number += 1)) -eq 1 || test $(free_percent) -ge {FREE_PERCENT}; do
  dd if=/dev/urandom of=/own/$number bs=1M count={OWN_MIB} 2> /dev/null
done
sync
echo "{FULL}"
while read -r uptime _ < /proc/uptime; do echo "tick $uptime"; sleep 0.5; done &
while read -r line; do eval "$line" 2>&1; done
"""
"""What a server does, as its first process: it reads all files of its disk, and what is left it fills with its own.

Then it tells the time twice in a second, and obeys the console.
"""


def image(suite: str) -> Path:
    """Returns the disk of a server of that suite, made the first time."""

    def make(directory: Path) -> None:
        directory.mkdir()
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            tree = Path(scratch, "tree")
            options = ["--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
            subprocess.run(["mmdebstrap", *options, suite, tree], stdin=subprocess.DEVNULL, check=True)
            subprocess.run(["mkfs.ext4", "-q", "-d", tree, directory / "disk", f"{DISK_KIB}k"], check=True)

    return cached(f"servers/{suite}", make) / "disk"


class Server(qemu.Guest):
    """One server. Its memory is mergeable and asks for huge pages without any option: QEMU's own default."""

    def __init__(self, name: str, disk: int, directory: Path, memory_mib: int) -> None:
        """`disk` is a descriptor of its image; what the server writes goes to a file that is gone with it."""
        content = {f"/{each}.ko": module(each) for each in MODULES} | {"/serve": SERVE.encode()}
        initrd = qemu.make_initrd(directory / name, content, INIT)
        drive = f"file={qemu.inherited(disk)},format=raw,if=none,id=disk,snapshot=on"
        more = ["-drive", drive, "-device", "virtio-blk-pci,drive=disk"]
        super().__init__(
            name,
            qemu.guest_kernel(),
            initrd,
            memory_mib=memory_mib,
            accelerator=ACCELERATOR,
            more=more,
            files=[disk],
        )

    def wait_full(self) -> None:
        """Waits until its memory is full; an AssertionError when that takes too long, or a service fails."""
        self.wait_text(FULL, FULL_SECONDS)
        assert "\nno " not in self.console(), f"{self.name} does not serve:\n{self.console()}"

    def checksum(self) -> str:
        """Returns the checksum of its own files, as it reads them now."""
        return next(line for line in self.command("cat /own/* | md5sum").splitlines() if not line.startswith("tick"))

    def ticks(self) -> list[float]:
        """Returns the seconds of its own clock at which it told the time."""
        lines = self.console().split("\n")[:-1]
        return [float(line.split()[1]) for line in lines if line.startswith("tick ")]

    def wait_tick(self) -> None:
        """Waits until it has told the time once more."""
        before = len(self.ticks())
        wait_for(lambda: len(self.ticks()) > before, qemu.COMMAND_SECONDS, f"sign of life of {self.name}")

    def ram(self) -> tuple[Mapping, dict[str, str]]:
        """Returns where its RAM is, and what smaps says of it: the largest mapping that may merge."""
        blocks = parse_blocks(Path(f"/proc/{self.pid}/smaps").read_text())
        mergeable = (block for block in blocks if "mg" in block[1]["VmFlags"].split())
        return max(mergeable, key=lambda block: block[0].size)

    def huge_ranges(self) -> int:
        """Returns how many ranges of its RAM are huge pages."""
        return int(self.ram()[1]["AnonHugePages"].split()[0]) * KIB // HUGE_BYTES

    def frames(self) -> Words:
        """Returns the numbers of the host's frames in which the pages of its RAM are, one for each page."""
        place = self.ram()[0]
        with Path(f"/proc/{self.pid}/pagemap").open("rb") as pagemap:
            entries = _pagemap(pagemap, place.start, place.size)
        return entries[entries >> PRESENT_BIT > 0] & FRAME

    def contents(self) -> list[Contents]:
        """Returns the contents of each range of its RAM with any page; the server stands still meanwhile."""
        place, directory = self.ram()[0], Path(f"/proc/{self.pid}")
        os.kill(self.pid, signal.SIGSTOP)
        try:
            with (directory / "pagemap").open("rb") as pagemap, (directory / "mem").open("rb") as memory:
                found = [_contents(pagemap, memory, begin) for begin in range(place.start, place.end, HUGE_BYTES)]
        finally:
            os.kill(self.pid, signal.SIGCONT)
        return [contents for contents in found if len(contents)]


def _pagemap(pagemap: BinaryIO, begin: int, size: int) -> Words:
    return np.frombuffer(os.pread(pagemap.fileno(), size // PAGE_BYTES * 8, begin // PAGE_BYTES * 8), np.uint64)


def _contents(pagemap: BinaryIO, memory: BinaryIO, begin: int) -> Contents:
    there = np.flatnonzero(_pagemap(pagemap, begin, HUGE_BYTES) >> PRESENT_BIT)
    # Nothing is read of a range without pages: that alone would fill it with the zero page.
    data = os.pread(memory.fileno(), HUGE_BYTES, begin) if len(there) else b""
    hashes = [xxh3_64_intdigest(data[place * PAGE_BYTES : (place + 1) * PAGE_BYTES]) for place in there]
    return np.array(hashes, np.uint64)


@contextmanager
def full_servers(suites: Sequence[str], memory_mib: int) -> Iterator[list[Server]]:
    """Boots a server of each suite, all at the same time; their memory is full when the block begins."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="servers-")))
        servers = []
        for number, suite in enumerate(suites):
            disk = stack.enter_context(image(suite).open("rb"))
            servers.append(stack.enter_context(Server(f"{suite}-{number}", disk.fileno(), directory, memory_mib)))
        for server in servers:
            server.wait_full()
        yield servers
