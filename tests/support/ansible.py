"""Ansible in an environment of its own, at the versions of packaging/lock/ansible.txt."""

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.support.container import ROOT
from tests.support.debian import cached

LOCK = ROOT / "packaging/lock/ansible.txt"


def ansible() -> Path:
    """Returns the directory of the virtual environment, made the first time."""

    def make(place: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        pip = [str(place / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--require-hashes", "--requirement", str(LOCK)], check=True)

    return cached(f"ansible-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}", make)
