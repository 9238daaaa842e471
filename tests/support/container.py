"""Debian's systemd as the first process of a container.

The container is made of this machine's /usr and this source, or it is a bare Debian of its own.
"""

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
"""The places of source and virtual environment inside, which a unit's PrivateTmp and ProtectHome do not hide."""
PACKAGES = sysconfig.get_path("purelib").replace(sys.prefix, PYTHON)
"""The packages of the virtual environment, for another Python inside."""
BOOT_SECONDS = 60.0
COMMAND_SECONDS = 120.0


class Container:
    """A container that has started."""

    def __init__(self, leader: int, directory: str = SOURCE) -> None:
        self.leader = leader
        """The host's number of the container's first process."""
        self._directory = directory

    def inside(self, *command: str) -> list[str]:
        """Returns the command line that runs a command inside."""
        return ["nsenter", f"--target={self.leader}", "--all", f"--wdns={self._directory}", *command]

    def online(self, *command: str) -> list[str]:
        """Returns the command line that runs a command inside with this machine's network; the container has none."""
        spaces = ("mount", "uts", "ipc", "pid", "cgroup")
        words = [f"--{space}" for space in spaces]
        return ["nsenter", f"--target={self.leader}", *words, f"--wdns={self._directory}", *command]

    def run(self, *command: str) -> str:
        """Returns what the command says on both streams, whatever its exit code."""
        return self.ended(*command).stdout

    def ended(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Returns how the command ended, with all it said on both streams."""
        return _ended(self.inside(*command))

    def ended_online(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Returns how the command ended with this machine's network, with all it said."""
        return _ended(self.online(*command))


def _ended(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=COMMAND_SECONDS,
    )


@contextmanager
def booted(files: Sequence[tuple[Path, str]], writable: Sequence[tuple[Path, str]] = ()) -> Iterator[Container]:
    """Starts a container of this machine's /usr with these files of ours at these places, in a with block."""
    binds = [*files, (ROOT, SOURCE), (Path(sys.prefix), PYTHON)]
    command = ["--volatile=yes", "--directory=/", *(f"--bind-ro={path}:{place}" for path, place in binds)]
    command += [*(f"--bind={path}:{place}" for path, place in writable), "--boot"]
    command += ["systemd.firstboot=off", "systemd.unit=basic.target"]  # asks nothing; and no services of this machine
    with _booted(command, SOURCE) as container:
        yield container


@contextmanager
def booted_system(
    system: Path, files: Sequence[tuple[Path, str]], writable: Sequence[tuple[Path, str]] = ()
) -> Iterator[Container]:
    """Starts a container that is this system, with all its services; changes in it are gone at the end of the block."""
    command = ["--volatile=overlay", f"--directory={system}", "--bind-ro=/etc/resolv.conf"]
    command += ["--timezone=off"]  # a file that is mounted there is in the way of tzdata
    command += [*(f"--bind-ro={path}:{place}" for path, place in files)]
    command += [*(f"--bind={path}:{place}" for path, place in writable), "--boot"]
    with _booted(command, "/") as container:
        yield container


@contextmanager
def _booted(options: Sequence[str], directory: str) -> Iterator[Container]:
    need(os.geteuid() == 0 and bool(shutil.which("systemd-nspawn")), "root, and systemd-nspawn (systemd-container)")
    command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--capability=all"]
    # No filter of its own: who is under one, as its parents are, cannot read others'.
    environment = {**os.environ, "SYSTEMD_SECCOMP": "0"}
    with subprocess.Popen(
        [*command, *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as nspawn:
        try:
            leader = wait_for(lambda: _first_process(nspawn.pid), BOOT_SECONDS, "first process")
            container = Container(leader, directory)
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
    """Returns the host's number of systemd inside; 0 while only processes run that prepare its place."""
    with suppress(psutil.NoSuchProcess):
        return next((one.pid for one in psutil.Process(nspawn).children() if one.name() == "systemd"), 0)
    return 0
