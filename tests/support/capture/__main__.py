"""Captures what a kernel says while memory is merged, as a tree for the tests:

python -m tests.support.capture here DIRECTORY            this machine's kernel
python -m tests.support.capture bookworm DIRECTORY        the cloud kernel of a Debian suite, in a QEMU guest
"""

import base64
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.support.debian import kernel_of
from tests.support.ksmlock import locked_ksm
from tests.support.qemu import BOOT_SECONDS, UP, Guest, make_initrd

HERE = Path(__file__).parent
SCRIPT = HERE / "capture.sh"
NOISE = re.compile(r"^(intr|softirq|Cpus_allowed|Mems_allowed|Seccomp|Sig|Shd|Cap)")
"""Lines of /proc/stat and /proc/PID/status that are long, or tell about the machine, and that nobody reads."""


def main(kernel: str, directory: Path) -> None:
    """Captures one tree; the directory must not be there yet."""
    directory.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, "qemu-system-x86_64")  # its name makes guest discovery take it for a guest
        subprocess.run(["gcc", "-O2", "-static", "-o", program, HERE / "mergeable.c"], check=True)
        if kernel == "here":
            capture_here(program, directory)
        else:
            capture_guest(kernel_of(kernel), program, directory)
    for file in directory.rglob("*"):
        if file.is_file():
            tidy(file)


def capture_here(program: Path, directory: Path) -> None:
    """Captures from the running kernel, under the lock."""
    path = f"{program.parent}:{os.environ['PATH']}"
    with locked_ksm():
        subprocess.run(["sh", SCRIPT, directory.resolve()], env={**os.environ, "PATH": path}, check=True)


def capture_guest(kernel: Path, program: Path, directory: Path) -> None:
    """Captures from another kernel in a guest, over its serial console."""
    content = {"/bin/qemu-system-x86_64": program.read_bytes(), "/capture.sh": SCRIPT.read_bytes()}
    with Guest("capture", kernel, make_initrd(program.parent / "guest", content)) as guest:
        guest.wait_text(UP, BOOT_SECONDS)
        guest.command("sh /capture.sh /captured", BOOT_SECONDS)
        packed = base64.b64decode(guest.command("tar -c -C /captured . | gzip | base64"))
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(directory)


def tidy(file: Path) -> None:
    """Takes out what nobody reads, or what names the machine."""
    text = file.read_text()
    if file.name == "version":
        text = re.sub(r"(Linux version [\d.]+).*", r"\1", text)
    file.write_text("".join(line for line in text.splitlines(keepends=True) if not NOISE.match(line)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
