"""Debian's systemd as the first process of a container: this machine's /usr, this source, and nothing else."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.support.need import need
from tests.support.process import wait_for

ROOT = Path(__file__).parent.parent.parent
SOURCE, PYTHON = "/opt/source", "/opt/python"
"""Where the source and the virtual environment are inside: not where a unit's PrivateTmp or ProtectHome hides them."""
PACKAGES = sysconfig.get_path("purelib").replace(sys.prefix, PYTHON)
"""For another Python inside than that of the virtual environment."""
BOOT_SECONDS = 60.0
COMMAND_SECONDS = 120.0


class Container:
    """A container that is up."""

    def __init__(self, leader: int) -> None:
        self.leader = leader
        """The host's number of its first process."""

    def inside(self, *command: str) -> list[str]:
        """The command line that runs a command inside."""
        return ["nsenter", f"--target={self.leader}", "--all", f"--wdns={SOURCE}", *command]

    def run(self, *command: str) -> str:
        """What the command says on both streams, whatever its exit code."""
        done = subprocess.run(
            self.inside(*command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        return done.stdout


@contextmanager
def booted(files: Sequence[tuple[Path, str]], writable: Sequence[tuple[Path, str]] = ()) -> Iterator[Container]:
    """A container with these files of ours at these places, until the end of a with block."""
    need(os.geteuid() == 0 and bool(shutil.which("systemd-nspawn")), "root, and systemd-nspawn (systemd-container)")
    binds = [*files, (ROOT, SOURCE), (Path(sys.prefix), PYTHON)]
    command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--volatile=yes"]
    command += ["--capability=all", "--directory=/", *(f"--bind-ro={path}:{place}" for path, place in binds)]
    command += [*(f"--bind={path}:{place}" for path, place in writable), "--boot"]
    command += ["systemd.firstboot=off", "systemd.unit=basic.target"]  # asks nothing; and no services of this machine
    # No filter of its own: who is under one, as its parents are, cannot read others'.
    environment = {**os.environ, "SYSTEMD_SECCOMP": "0"}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as nspawn:
        try:
            container = Container(wait_for(lambda: _first_process(nspawn.pid), BOOT_SECONDS, "first process"))
            wait_for(
                lambda: container.run("systemctl", "is-system-running").strip() in ("running", "degraded"),
                BOOT_SECONDS,
                "booted system",
            )
            yield container
        finally:
            for child in psutil.Process(nspawn.pid).children():
                child.kill()  # and with the first process all others; it waits for those that entered it from outside
            try:
                nspawn.communicate(timeout=BOOT_SECONDS)
            finally:
                nspawn.kill()


def _first_process(nspawn: int) -> int:
    """The host's number of systemd inside; 0 as long as there are only those that prepare its place and go."""
    with suppress(psutil.NoSuchProcess):
        return next((one.pid for one in psutil.Process(nspawn).children() if one.name() == "systemd"), 0)
    return 0
