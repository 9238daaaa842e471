"""Emulated machines: a Debian kernel, Python and this package in QEMU, and a program of ours that is root in there.

Nothing of the host's KVM, KSM, clock or load is in them: one emulated instruction takes one nanosecond, waiting takes
nothing, and so deadlines and measured shares of a core are the same on every host. Nor does the host see a guest in
them: QEMU runs under another name, and its memory is not mergeable.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.debian import kernel_of
from tests.support.initrd import application, packed, system
from tests.support.need import need

BEGUN, ENDED = "the program begins", "the program ended with "


@dataclass(frozen=True)
class Machine:
    """One kind of emulated machine."""

    suite: str
    """The Debian suite whose cloud kernel it boots."""
    processor: str
    """The processor, as Debian calls it."""
    qemu: str
    arguments: tuple[str, ...]
    console: str


def _nodes(count: int, mib: int) -> tuple[str, ...]:
    words: list[str] = []
    for node in range(count):
        words += ["-object", f"memory-backend-ram,id=memory-{node},size={mib}M,merge=off"]
        words += ["-numa", f"node,nodeid={node},cpus={node},memdev=memory-{node}"]
    return tuple(words)


PC = ("-M", "q35,mem-merge=off", "-cpu", "Nehalem", "-m", "1G")
VIRT = ("-M", "virt,mem-merge=off", "-cpu", "cortex-a72", "-smp", "2", "-m", "1G", *_nodes(2, 512))
MACHINES = {
    "6.1": Machine("bookworm", "amd64", "qemu-system-x86_64", PC, "ttyS0"),
    "6.12": Machine("trixie", "amd64", "qemu-system-x86_64", PC, "ttyS0"),
    "arm64": Machine("bookworm", "arm64", "qemu-system-aarch64", VIRT, "ttyAMA0"),
}
"""Machines by Linux release, each a PC with one processor; aarch64 has two, each with a node of its own."""


def run_inside(name: str, module: str, *arguments: str, seconds: float) -> str:
    """Returns what a module printed as root in such a machine (`python -m module arguments`), with standard error.

    Skips the test, or fails it in CI, where the machine cannot be had. Fails it with all that its console showed when
    the module exits with anything but 0, the kernel panics, or it takes longer than so many seconds of this host.
    """
    machine = MACHINES[name]
    _need(machine)
    with TemporaryDirectory() as scratch:
        initrd = Path(scratch, "initrd")
        line = " ".join([module, *arguments])
        program = application(Path(scratch, "application"), line, machine.console, (BEGUN, ENDED))
        initrd.write_bytes(system(machine.processor).read_bytes() + packed(program))
        shown, failure = _console(machine, initrd, seconds)
    return output(shown, f"{line} on {name}: {failure or 'failed'}")


def output(console: str, failure: str) -> str:
    """Returns what the program printed, if it ended well; raises AssertionError that begins with the failure."""
    found, ended, _ = console.partition(f"{BEGUN}\n")[2].partition(f"{ENDED}0\n")
    assert ended, f"{failure}; its console:\n{console}"
    return found


def _console(machine: Machine, initrd: Path, seconds: float) -> tuple[str, str]:
    """Returns all that the machine showed until it was off, and what went wrong with it ('' for nothing)."""
    kernel = kernel_of(machine.suite, machine.processor)
    clock = ["-accel", "tcg", "-icount", "shift=0,sleep=off"]
    options = ["-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none", "-serial", "stdio"]
    words = f"console={machine.console} quiet loglevel=1 panic=-1"
    boot = ["-kernel", str(kernel), "-initrd", str(initrd), "-append", words]
    shown = initrd.with_name("console")
    failure = ""
    program = initrd.with_name("emulated-machine")
    program.symlink_to(shutil.which(machine.qemu) or machine.qemu)
    with shown.open("wb") as console:
        command = [str(program), *machine.arguments, *clock, *options, *boot]
        try:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=True,
            )
        except subprocess.SubprocessError as error:
            failure = str(error)
    return shown.read_text(errors="replace").replace("\r", ""), failure


def _need(machine: Machine) -> None:
    for program in (machine.qemu, "cpio", "apt-get"):
        need(shutil.which(program) is not None, program)
    try:
        kernel_of(machine.suite, machine.processor)
        system(machine.processor)
    except (OSError, subprocess.CalledProcessError, StopIteration):
        need(False, f"Debian's packages for {machine.processor}")
