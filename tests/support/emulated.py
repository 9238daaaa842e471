"""Emulated machines: a Debian kernel, Python and this package in QEMU, and programs of ours that are root in there.

Nothing of the host's KVM, KSM, clock or load is in them: one emulated instruction takes one nanosecond, waiting takes
nothing, and so deadlines and measured shares of a core are the same on every host. Nor does the host see a guest in
them: QEMU runs under another name, and its memory is not mergeable.
"""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.debian import kernel_of
from tests.support.initrd import application, packed, system
from tests.support.need import need


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
    clocks: str = ""
    """What its kernel is told of its clocks."""


def _nodes(count: int, mib: int) -> tuple[str, ...]:
    words: list[str] = []
    for node in range(count):
        words += ["-object", f"memory-backend-ram,id=memory-{node},size={mib}M,merge=off"]
        words += ["-numa", f"node,nodeid={node},memdev=memory-{node}"]
    return tuple(words)


def _pc(processor: str) -> tuple[str, ...]:
    return ("-M", "q35,mem-merge=off", "-cpu", processor, "-m", "1536M")  # with 1 GiB, memory would be nearly short


PC = _pc("Nehalem,+rdrand")  # without its random numbers, the first program waits for the kernel to have some
PC_WITH_KEYS = _pc("Haswell-noTSX,+pku,-erms,-avx,-avx2")  # what it lacks is slow here: erms copies byte by byte
PC_CLOCKS = "nolapic_timer no_timer_check"
"""No timer is measured or tried out at the start, for to wait busily is what costs most in here."""
VIRT = ("-M", "virt,mem-merge=off", "-cpu", "cortex-a72", "-m", "1G", *_nodes(2, 512))
MACHINES = {
    "6.1": Machine("bookworm", "amd64", "qemu-system-x86_64", PC, "ttyS0", PC_CLOCKS),
    "6.12": Machine("trixie", "amd64", "qemu-system-x86_64", PC_WITH_KEYS, "ttyS0", PC_CLOCKS),
    "arm64": Machine("bookworm", "arm64", "qemu-system-aarch64", VIRT, "ttyAMA0"),
}
"""Machines by Linux release or by what is special, each with one processor.

That of 6.12 has memory protection keys; the one of aarch64 has two nodes of memory.
"""


@dataclass(frozen=True)
class Shown:
    """What a machine showed on its console until it was off."""

    name: str
    console: str
    failure: str | None = None
    """What went wrong with the machine itself."""

    def of(self, program: str) -> str:
        """Returns what a program printed, with standard error; raises AssertionError when it did not end well."""
        begun, ended = marks(program)
        found, well, _ = self.console.partition(f"{begun}\n")[2].partition(f"{ended}0\n")
        assert well, f"{program} on {self.name}: {self.failure or 'failed'}; its console:\n{self.console}"
        return found


def marks(program: str) -> tuple[str, str]:
    """Returns the lines of the console before and behind what a program prints; its exit code ends the second."""
    return f"{program} begins", f"{program} ended with "


def run_inside(name: str, programs: Sequence[str], *, seconds: float) -> Shown:
    """Runs modules as root in such a machine, one after the other, each given as for `python -m`.

    Skips the test, or fails it in CI, where the machine cannot be had. When the kernel panics, or all takes longer than
    so many seconds of this host, the programs that have ended by then are still to be had.
    """
    machine = MACHINES[name]
    _need(machine)
    with TemporaryDirectory() as scratch:
        initrd = Path(scratch, "initrd")
        tree = application(Path(scratch, "application"), {each: marks(each) for each in programs}, machine.console)
        initrd.write_bytes(system(machine.processor).read_bytes() + packed(tree))
        return Shown(name, *_console(machine, initrd, seconds))


def _console(machine: Machine, initrd: Path, seconds: float) -> tuple[str, str | None]:
    """Returns all that the machine showed until it was off, and what went wrong with it."""
    kernel = kernel_of(machine.suite, machine.processor)
    clock = ["-accel", "tcg", "-icount", "shift=0,sleep=off"]
    options = ["-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none", "-serial", "stdio"]
    # On aarch64 a kernel at a random place isolates its page tables despite mitigations=off: each call takes longer.
    words = f"console={machine.console} quiet loglevel=1 panic=-1 mitigations=off nokaslr {machine.clocks}"
    boot = ["-kernel", str(kernel), "-initrd", str(initrd), "-append", words]
    shown = initrd.with_name("console")
    failure = None
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
