"""Bare Debian systems, made by mmdebstrap the first time and kept in the cache."""

import shutil
import subprocess
from pathlib import Path

from tests.support.debian import cached
from tests.support.need import need


def bare(suite: str) -> Path:
    """Returns a Debian of that suite as small as it can be booted: apt, systemd, and no Python."""
    need(bool(shutil.which("mmdebstrap")), "mmdebstrap, which makes a bare Debian")

    def make(root: Path) -> None:
        options = ["--quiet", "--variant=minbase", "--include=systemd,systemd-sysv,dbus"]
        subprocess.run(["mmdebstrap", *options, suite, root], stdin=subprocess.DEVNULL, check=True)

    return cached(f"roots/{suite}", make)
