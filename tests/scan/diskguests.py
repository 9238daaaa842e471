"""Real QEMU guests with a disk that the kernel reads and writes on its own."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from random import Random

from ksmtuned_py.units import MIB
from tests.support.qemu import BOOT_SECONDS, NOBODY, UP, FilledGuest, guest_kernel, inherited

EQUAL_BYTES, OWN_BYTES, DISK_BYTES = 6 * MIB, 4 * MIB, 8 * MIB
MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")
WORK = """\
sum=$(md5sum < /own)
while true; do
  dd if=/own of=/dev/vda bs=64k conv=fsync 2>/dev/null
  echo 1 > /proc/sys/vm/drop_caches
  dd if=/dev/vda of=/tmp/back bs=64k count=64 2>/dev/null
  test "$(md5sum < /tmp/back)" = "$sum" || echo wrong >> /tmp/wrong
  echo >> /tmp/rounds
  sleep 0.5
done &
"""
"""Writes a file to the disk and reads it back, for ever, and says when anything is not as it was.

It rests between two rounds, because an emulated processor at work takes a whole one of this machine.
"""


@contextmanager
def loop_device(path: Path) -> Iterator[Path]:
    """Yields the file as a block device."""
    done = subprocess.run(["losetup", "--find", "--show", str(path)], check=True, capture_output=True, text=True)
    device = Path(done.stdout.strip())
    owner = device.stat().st_uid
    try:
        os.chown(device, NOBODY, -1)
        yield device
    finally:
        os.chown(device, owner, -1)
        subprocess.run(["losetup", "--detach", str(device)], check=True)


class DiskGuest(FilledGuest):
    """One guest; its disk is busy all the time once `work` was called."""

    def __init__(self, name: str, directory: Path, disk: int, aio: str) -> None:
        modules = {f"/{name}.ko": module(name) for name in MODULES}
        more = [
            *("-machine", "mem-merge=off"),
            *("-drive", f"file={inherited(disk)},format=raw,if=none,id=disk,cache=none,aio={aio}"),
            *("-device", "virtio-blk-pci,drive=disk"),
        ]
        content = {"/equal": Random("equal").randbytes(EQUAL_BYTES), "/own": Random(name).randbytes(OWN_BYTES)}
        super().__init__(name, content | modules, directory, more, files=[disk])

    def work(self) -> None:
        """Keeps the disk busy."""
        for name in MODULES:
            self.command(f"insmod /{name}.ko")
        self.command(WORK)

    def rounds(self) -> int:
        """Returns how often the disk was written and read back; an AssertionError when anything came back wrong."""
        self.command("test ! -e /tmp/wrong")
        return int(self.command("cat /tmp/rounds 2>/dev/null | wc -l"))


@contextmanager
def disk_guests(names: list[str], directory: Path, aio: str, *, block: bool = False) -> Iterator[list[DiskGuest]]:
    """Yields guests that are up and at work, with a file as their disk, or with a block device."""
    with ExitStack() as stack:
        guests = []
        for name in names:
            disk = directory / f"{name}.disk"
            disk.write_bytes(bytes(DISK_BYTES))
            disk.chmod(0o666)
            disk = stack.enter_context(loop_device(disk)) if block else disk
            with disk.open("r+b") as file:
                guests.append(stack.enter_context(DiskGuest(name, directory, file.fileno(), aio)))
        for one in guests:
            one.wait_text(UP, BOOT_SECONDS)
            one.work()
        yield guests


@cache
def module(name: str) -> bytes:
    """Returns one of the guest kernel's modules."""
    tree = guest_kernel().parent.parent / "lib" / "modules"
    return next(tree.rglob(f"{name}.ko")).read_bytes()
