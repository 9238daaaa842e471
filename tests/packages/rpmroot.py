"""A root directory in which rpm installs and erases: with a shell, and commands that only write down their calls."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CALLED = '#!/bin/sh\necho "${0##*/} $*" >> /calls\n'
SYSTEMCTL = """#!/bin/sh
[ "$1" != is-active ] || exec cat /active
echo "systemctl $*" >> /calls
"""
STAT = """#!/bin/sh
case $2 in *max_page_sharing) echo root ;; *) echo ksmtuned-py ;; esac
"""
"""Says who owns a knob."""
COMMANDS = {
    "systemctl": SYSTEMCTL,
    "systemd-sysusers": CALLED,
    "systemd-tmpfiles": CALLED,
    "chown": CALLED,
    "chmod": CALLED,
    "stat": STAT,
}
KNOBS = "sys/kernel/mm/ksm"


def rpm_says(*words: str | Path) -> str:
    """What rpm says on both streams; it has to end well."""
    done = subprocess.run(
        ["rpm", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@dataclass
class RpmRoot:
    """A root directory on which a systemd seems to run."""

    path: Path

    def fill(self) -> None:
        """Makes what a system has."""
        for directory in ("bin", "dev", "etc", "run/systemd/system", "tmp", KNOBS):
            (self.path / directory).mkdir(parents=True)
        self._put_a_shell()
        for file in ("dev/null", f"{KNOBS}/run", f"{KNOBS}/max_page_sharing"):
            (self.path / file).touch()
        for name, text in COMMANDS.items():
            self.command(f"bin/{name}", text)
        self.is_now("inactive")

    def _put_a_shell(self) -> None:
        """Not busybox', which would take its own chown for the one in there."""
        libraries = re.findall(
            r"(/\S+) \(", subprocess.run(["ldd", "/bin/dash"], capture_output=True, text=True, check=True).stdout
        )
        for file in ("/bin/dash", "/bin/busybox", *libraries):
            place = self.path / file.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
        (self.path / "bin/sh").symlink_to("dash")
        for name in ("mv", "rm", "rmdir", "cat"):
            (self.path / "bin" / name).symlink_to("busybox")

    def command(self, place: str, text: str) -> None:
        """Puts a command there."""
        (self.path / place).write_text(text)
        (self.path / place).chmod(0o755)

    def is_now(self, state: str) -> None:
        """What systemd says of the service from now on."""
        (self.path / "active").write_text(f"{state}\n")

    def rpm(self, *words: str | Path) -> str:
        """What rpm says while it works in there; it has to end well, and no script of a package may fail."""
        said = rpm_says("--root", self.path, *words)
        assert "scriptlet failed" not in said
        return said

    def install(self, *packages: Path) -> str:
        """Installs packages in one transaction."""
        return self.rpm("--install", "--nodeps", *packages)

    def calls(self) -> list[str]:
        """What the packages' scripts have called since the last time."""
        file = self.path / "calls"
        said = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return said

    def left(self) -> list[str]:
        """What is in there of the packages."""
        names = (os.path.relpath(path, self.path) for path in self.path.rglob("*"))
        return sorted(name for name in names if "ksmtuned" in name)
