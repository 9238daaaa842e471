"""Bare systems of Debian and Ubuntu, made by mmdebstrap the first time and kept in the cache."""

import shutil
import subprocess
from pathlib import Path

from tests.support.debian import cached, unpacked_of
from tests.support.need import need

UBUNTU = "noble"
"""Ubuntu 24.04."""


def bare(suite: str) -> Path:
    """Returns a system of that suite as small as it can be booted: apt, systemd, and no Python."""
    need(bool(shutil.which("mmdebstrap")), "mmdebstrap, which makes a bare Debian")

    def make(root: Path) -> None:
        options = ["--quiet", "--variant=minbase", "--include=systemd,systemd-sysv,dbus"]
        if suite == UBUNTU:
            options += of_ubuntu()
        subprocess.run(["mmdebstrap", *options, suite, root], stdin=subprocess.DEVNULL, check=True)

    return cached(f"roots/{suite}", make)


def of_ubuntu() -> list[str]:
    """How mmdebstrap makes an Ubuntu: trusting the keys that Debian has of it, and with what Debian has in main."""
    keys = unpacked_of("trixie", "ubuntu-keyring") / "usr/share/keyrings/ubuntu-archive-keyring.gpg"
    return [f"--keyring={keys}", "--components=main,universe", "--include=apt"]
