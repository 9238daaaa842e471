"""Debian packages unpacked into a cache and not installed: a guest's kernel, or a tool without its service.

`python -m tests.support.debian PACKAGE` prints the directory.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support.once import made_once

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ksmtuned-py-tests"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def unpacked(package: str) -> Path:
    """Returns the files of a package, downloaded the first time; raises CalledProcessError when apt-get fails."""
    return cached(f"debian/{package}", lambda files: unpack(package, files))


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """Returns a directory of the cache, made the first time."""
    return made_once(CACHE / name, make)


def unpacked_of(suite: str, package: str) -> Path:
    """Returns the files of another suite's package, without adding that suite to this machine's apt."""

    def make(files: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            unpack(package, files, *apt_options(Path(scratch), _processor(), suite))

    return cached(f"debian/{suite}/{package}", make)


def unpack(package: str, directory: Path, *options: str) -> None:
    """Downloads a package and puts its files into a directory, with options for apt-get."""
    with tempfile.TemporaryDirectory() as scratch:
        # Root's apt-get would download as the user _apt, who may not write here, and only warn about it.
        _apt("apt-get", "-q", *options, "-o", "APT::Sandbox::User=root", "download", package, cwd=Path(scratch))
        subprocess.run(["dpkg-deb", "-x", next(Path(scratch).glob("*.deb")), directory], check=True)


def kernel_package(*options: str, processor: str = "amd64") -> str:
    """Returns the package behind the metapackage of Debian's cloud kernel, like linux-image-6.1.0-49-cloud-amd64."""
    lines = _apt("apt-cache", *options, "depends", "--important", f"linux-image-cloud-{processor}").splitlines()
    return next(line.split()[1] for line in lines if line.strip().startswith("Depends: linux-image"))


def kernel_of(suite: str, processor: str = "amd64") -> Path:
    """Returns the cloud kernel of a Debian suite, without adding that suite to this machine's apt."""

    def make(files: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            options = apt_options(Path(scratch), processor, suite)
            unpack(kernel_package(*options, processor=processor), files, *options)

    return next(cached(f"debian/kernel-{suite}-{processor}", make).glob("boot/vmlinuz-*"))


def _processor() -> str:
    return subprocess.run(
        ["dpkg", "--print-architecture"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def apt_options(scratch: Path, processor: str, suite: str = "") -> list[str]:
    """Returns options that make apt know only packages of that processor, of the suite or of this machine's sources.

    All that apt then keeps is below the scratch directory: its lists, which are there already, and what it downloads.
    """
    (scratch / "lists/partial").mkdir(parents=True)
    (scratch / "archives/partial").mkdir(parents=True)
    (scratch / "status").touch()
    settings: dict[str, object] = {
        "APT::Architecture": processor,
        "APT::Architectures": processor,
        "APT::Sandbox::User": "root",
        "Dir::State": scratch,
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch,
    }
    if suite:
        sources = scratch / "sources.list"
        sources.write_text(f"deb [signed-by={KEYRING}] http://deb.debian.org/debian {suite} main\n")
        settings |= {"Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "-"}
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    subprocess.run(["apt-get", "-q", *options, "update"], check=True, stdout=subprocess.DEVNULL)
    return options


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
