"""Real QEMU guests without KVM: Debian's cloud kernel, a busybox initrd, and a shell on the serial console.

A guest holds two files in its memory, one equal in all guests and one of its own, and can say whether they are intact.
"""

import hashlib
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self

from ksmtuned_py.units import MIB
from tests.support.debian import kernel_package, unpacked
from tests.support.need import need
from tests.support.process import wait_for

QEMU = "qemu-system-x86_64"
BOOT_SECONDS = 120.0
"""How long a boot may take: one guest is up in 5 s on an idle core; several at once, on two busy ones, take longer."""
COMMAND_SECONDS = 60.0
UP = "the guest is up"
NOBODY = 65534
_AS_NOBODY: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
"""How management software starts it: the scan backend refuses guests with the rights of root."""
INIT = f"""\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
stty -F /dev/ttyS0 -echo -onlcr
echo {UP}
cat /dev/ttyS0 | sh 2>&1
"""


class Guest:
    """One guest in a with block; it boots as soon as it is made."""

    def __init__(
        self,
        name: str,
        kernel: Path,
        initrd: Path,
        *,
        memory_mib: int = 256,
        accelerator: str = "tcg",
        more: Sequence[str] = (),
        files: Sequence[int] = (),
    ) -> None:
        """`files` are descriptors that QEMU inherits."""
        self.name = name
        self._console = initrd.with_name(f"{name}.console")
        self._answers = 0
        with self._console.open("wb") as console, kernel.open("rb") as code, initrd.open("rb") as disk:
            boot = _command(name, inherited(code.fileno()), inherited(disk.fileno()), memory_mib, accelerator)
            self._process = subprocess.Popen(
                [*boot, *more],
                stdin=subprocess.PIPE,
                stdout=console,
                stderr=subprocess.STDOUT,
                pass_fds=[code.fileno(), disk.fileno(), *files],
                **_AS_NOBODY if os.geteuid() == 0 else {},
            )

    @property
    def pid(self) -> int:
        """QEMU's process ID."""
        return self._process.pid

    def console(self) -> str:
        """Returns all that the serial console showed so far."""
        return self._console.read_text(errors="replace")

    def wait_text(self, text: str, seconds: float) -> None:
        """Waits until the console has shown the text; fails at once when QEMU ends."""
        wait_for(lambda: self._shown(re.escape(text)), seconds, f"{text!r} on the console of {self.name}")

    def command(self, line: str, seconds: float = COMMAND_SECONDS) -> str:
        """Returns what a shell command prints in the guest; an AssertionError when it fails or takes too long."""
        self._answers += 1
        begin = len(self.console())
        self._type(f"{line}\necho done-{self._answers}-$?")

        def look() -> re.Match[str] | None:
            found = self._shown(rf"done-{self._answers}-(\d+)\n")
            if not found:
                self._type("")  # QEMU's serial port may sit on the last bytes until more come: one time in three
            return found

        done = wait_for(look, seconds, f"end of {line!r} on the console of {self.name}", every_seconds=0.1)
        assert done
        output = self.console()[begin : done.start()]
        assert done[1] == "0", f"{self.name}: {line!r} exited with {done[1]}: {output}"
        return output

    def stop(self) -> None:
        """Ends QEMU and waits until its memory is back."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _type(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def _shown(self, pattern: str) -> re.Match[str] | None:
        ended = self._process.poll() is not None
        found = re.search(pattern, self.console())
        assert found or not ended, f"{self.name}: QEMU ended:\n{self.console()}"
        return found


class FilledGuest(Guest):
    """A guest with known content in its memory."""

    def __init__(
        self,
        name: str,
        content: dict[str, bytes],
        directory: Path,
        more: Sequence[str] = (),
        files: Sequence[int] = (),
    ) -> None:
        self.checksums = {file: hashlib.md5(data).hexdigest() for file, data in content.items()}
        super().__init__(name, guest_kernel(), make_initrd(directory / name, content), more=more, files=files)

    def checksums_inside(self) -> dict[str, str]:
        """Returns the checksums of its content as the guest itself reads it now, to be compared with `checksums`."""
        lines = self.command(f"md5sum {' '.join(self.checksums)}").splitlines()
        return {file: checksum for checksum, file in (line.split() for line in lines)}


@contextmanager
def filled_guests(
    names: Sequence[str],
    directory: Path,
    *,
    equal_bytes: int = 32 * MIB,
    own_bytes: int = 16 * MIB,
    more: Sequence[str] = (),
) -> Iterator[list[FilledGuest]]:
    """Boots guests at the same time; they are up when the block begins. `more` are QEMU arguments."""
    equal = random.Random("equal").randbytes(equal_bytes)
    contents = {name: {"/equal": equal, "/own": random.Random(name).randbytes(own_bytes)} for name in names}
    with booted(contents, directory, more) as guests:
        yield guests


@contextmanager
def booted(
    contents: Mapping[str, dict[str, bytes]], directory: Path, more: Sequence[str] = ()
) -> Iterator[list[FilledGuest]]:
    """Boots guests with these contents by their names, at the same time; they are up when the block begins."""
    with ExitStack() as stack:
        made = (FilledGuest(name, content, directory, more) for name, content in contents.items())
        guests = [stack.enter_context(guest) for guest in made]
        for guest in guests:
            guest.wait_text(UP, BOOT_SECONDS)
        yield guests


def inherited(descriptor: int) -> str:
    """Returns where QEMU finds an inherited file: it runs as nobody, who may not enter the tests' directories."""
    return f"/proc/self/fd/{descriptor}"


def need_qemu() -> None:
    """Skips the test, or fails it in CI, where guests cannot be had."""
    need(shutil.which(QEMU) is not None, QEMU)
    need(shutil.which("busybox") is not None, "busybox, statically linked")
    need(shutil.which("cpio") is not None, "cpio")
    try:
        guest_kernel()
    except (OSError, subprocess.CalledProcessError, StopIteration):
        need(False, "Debian's cloud kernel")


@cache
def guest_kernel() -> Path:
    """Returns Debian's cloud kernel, unpacked and not installed."""
    return next(unpacked(kernel_package()).glob("boot/vmlinuz-*"))


def make_initrd(directory: Path, content: dict[str, bytes], init: str = INIT) -> Path:
    """Makes an initrd with busybox, an init script and further files by their paths; uncompressed, it boots sooner."""
    tree = directory / "tree"
    busybox = Path(shutil.which("busybox") or "busybox").read_bytes()
    for path, data in {"/bin/busybox": busybox, "/init": init.encode(), **content}.items():
        file = tree / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    packed = subprocess.run(
        ["cpio", "--create", "--format=newc", "--quiet"],
        cwd=tree,
        input=names.encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    shutil.rmtree(tree)
    initrd = directory / "initrd"
    initrd.write_bytes(packed.stdout)
    return initrd


def _command(name: str, kernel: str, initrd: str, memory_mib: int, accelerator: str) -> list[str]:
    machine = [
        "-name",
        f"guest={name}",
        "-M",
        "q35",
        "-accel",
        accelerator,
        "-m",
        str(memory_mib),
        "-nodefaults",
        "-no-reboot",
    ]
    console = ["-display", "none", "-monitor", "none", "-serial", "stdio"]
    # On a busy host no tick may come while the kernel looks whether its timer ticks, and it would panic.
    boot = ["-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1 no_timer_check"]
    return [QEMU, *machine, *console, *boot]
