"""Ansible in an environment of its own, at the versions of packaging/lock/ansible.txt."""

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.support.container import ROOT
from tests.support.debian import cached

LOCK = ROOT / "packaging/lock/ansible.txt"


def ansible(python: str) -> Path:
    """Returns the directory of a virtual environment for that Python, made the first time.

    It is for the /usr/bin/python3 of whatever system it is mounted in, which need not be this machine's.
    """

    def make(place: Path) -> None:
        libraries = place / f"lib/python{python}/site-packages"
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        pip += ["--target", str(libraries), f"--python-version={python}", "--only-binary=:all:"]
        subprocess.run([*pip, "--require-hashes", "--requirement", str(LOCK)], check=True)
        (place / "pyvenv.cfg").write_text("home = /usr/bin\n")
        (place / "bin").mkdir(exist_ok=True)
        (place / "bin/python").symlink_to("/usr/bin/python3")

    return cached(f"ansible-{python}-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}", make)
