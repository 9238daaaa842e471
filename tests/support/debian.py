"""Debian packages unpacked into a cache and not installed: a guest's kernel, or a tool without its service.

`python -m tests.support.debian PACKAGE` prints the directory.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ksmtuned-py-tests"


def unpacked(package: str) -> Path:
    """The files of a package, downloaded the first time; raises CalledProcessError where apt-get cannot have it."""
    wanted = CACHE / "debian" / package
    if not wanted.exists():
        wanted.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=wanted.parent) as scratch:
            files = Path(scratch, "files")
            unpack(package, files)
            shutil.rmtree(wanted, ignore_errors=True)
            files.rename(wanted)  # whole or not at all, also for a second test run at the same time
    return wanted


def unpack(package: str, directory: Path, *options: str) -> None:
    """Downloads a package and puts its files into a directory, with options for apt-get."""
    with tempfile.TemporaryDirectory() as scratch:
        # Root's apt-get would download as the user _apt, who may not write here, and only warn about it.
        _apt("apt-get", "-q", *options, "-o", "APT::Sandbox::User=root", "download", package, cwd=Path(scratch))
        subprocess.run(["dpkg-deb", "-x", next(Path(scratch).glob("*.deb")), directory], check=True)


def kernel_package(*options: str, processor: str = "amd64") -> str:
    """The package behind the metapackage of Debian's cloud kernel, like linux-image-6.1.0-49-cloud-amd64."""
    lines = _apt("apt-cache", *options, "depends", "--important", f"linux-image-cloud-{processor}").splitlines()
    return next(line.split()[1] for line in lines if line.strip().startswith("Depends: linux-image"))


def _apt(*arguments: str, cwd: Path | None = None) -> str:
    def ask() -> str:
        return subprocess.run(arguments, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout

    try:
        return ask()
    except subprocess.CalledProcessError:
        subprocess.run(["apt-get", "-q", "update"], check=True, stdout=subprocess.DEVNULL)  # no lists, or old ones
        return ask()


if __name__ == "__main__":
    print(unpacked(sys.argv[1]))
