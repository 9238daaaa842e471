"""Packages as they are built from this tree, and bare systems on which they are installed."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packages.rpmroot import RpmRoot
from tests.support.container import ROOT, booted_system
from tests.support.debian import CACHE
from tests.support.ksmlock import KSM, locked_ksm, need_real_ksm
from tests.support.need import need
from tests.support.once import made_once, place_of_run
from tests.support.roots import UBUNTU
from tests.support.roots import bare as bare_root
from tests.support.trees import make_fake_tree
from tests.support.unit import Unit

PACKAGES, TREE, WHEELS = "/opt/packages", "/opt/ksm", "/opt/wheels"
"""Where the built packages, this machine's knobs, and what pip may take are inside."""
CHECKOUT = "/srv/checkout"
LOCK = ROOT / "packaging/lock/requirements.txt"
BUILD_SECONDS = 900
CONFIG, STATE = "/etc/ksmtuned-py", "/var/lib/ksmtuned-py"
DPKG = "env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 dpkg --force-confdef --force-confold"
PURGE = f"{DPKG} --purge ksmtuned-py"


def build(directory: Path, *words: str, source: Path = ROOT) -> list[Path]:
    """Builds a package as an admin would, into this directory."""
    need(shutil.which("dh") is not None, "debhelper")
    done = subprocess.run(
        ["packaging/build.sh", *words, "--out", directory],
        cwd=source,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=BUILD_SECONDS,
    )
    assert done.returncode == 0, done.stdout
    return sorted(directory.iterdir())


@dataclass
class Installed(Unit):
    """A bare system, on which the package is put and taken away."""

    def shell(self, line: str) -> str:
        """What a line says on both streams; it has to end well."""
        done = self.container.ended("sh", "-c", line)
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        return done.stdout

    def apt_get(self, *words: str) -> str:
        """What apt-get says, with this machine's network; it has to end well."""
        settings = ["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"]
        with (CACHE / "apt.lock").open("w") as lock:  # systems share what was downloaded, also with another run
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = self.container.ended_online("env", *settings, "apt-get", "-q", "-y", *words)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def files(self) -> set[str]:
        """Every file of the system, but for what changes by itself, and what package managers keep for themselves."""
        passing = "/proc /sys /dev /run /tmp /opt /var/log /var/cache /var/lib/apt /var/lib/dpkg"
        pruned = " -o ".join(f"-path {path}" for path in passing.split())
        return set(self.shell(rf"find / \( {pruned} \) -prune -o -print").splitlines())


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """What runs in a container goes with it, and who has one holds the knobs' lock, which looks at them at its end."""


@contextmanager
def system(suite: str, packages: Path) -> Iterator[Installed]:
    """A bare Debian of that suite that is up, with this machine's knobs to write to, and these packages at hand."""
    need(os.geteuid() == 0, "root, to boot a container")
    need_real_ksm()
    with locked_ksm(), system_with(KSM, suite, packages) as one:
        yield one


@contextmanager
def system_with(ksm: Path, suite: str, packages: Path, more: Sequence[tuple[Path, str]] = ()) -> Iterator[Installed]:
    """The same with other knobs: a directory of files that look like them is nobody else's, and holds nobody up.

    `more` are directories that it has at these places.
    """
    need(os.geteuid() == 0, "root, to boot a container")
    archives = CACHE / "archives" / suite
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    writable = [(ksm, TREE), (archives, "/var/cache/apt/archives")]
    with booted_system(bare_root(suite), [(packages, PACKAGES), *more], writable) as container:
        one = Installed(container, ksm)
        one.shell(f"mount --bind {TREE} {KSM}")  # over the container's own, which is read-only
        one.shell("umount /proc/sys/kernel/random/boot_id")  # a service, with a /proc of its own, sees this machine's
        one.shell("touch /etc/hosts")  # every system has one; otherwise a package that Python takes along makes it
        one.apt_get("update")
        one.found = one.knobs()
        yield one


def tracked_source(directory: Path) -> Path:
    """This directory, with every file of the source that git tracks."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.rstrip("\0").split("\0"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, directory / name)
    return directory


def locked_wheels(directory: Path, python_version: str, *more: str) -> Path:
    """This directory, with the libraries of the lock file for that Python, and more of PyPI's."""
    command = [sys.executable, "-m", "pip", "--quiet", "download", "--dest", str(directory), "--no-deps"]
    command += [f"--python-version={python_version}", "--only-binary=:all:"]
    for wanted in (["--requirement", str(LOCK)], *([name] for name in more)):
        subprocess.run([*command, *wanted], check=True)
    return directory


def commands_of_page(heading: str, page: str = "docs/install.md") -> list[str]:
    """The blocks of commands below a heading of that page."""
    section = (ROOT / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = [[line[4:] for line in part.splitlines()] for part in section.split("\n\n") if part.startswith("    ")]
    return ["\n".join(lines) for lines in found]


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that is built on this machine, in a directory of its own."""
    return made_once(place_of_run(tmp_path_factory, "packages"), lambda made: build(made, "deb"))


@pytest.fixture(scope="module")
def made_up(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """A bare Debian 12 with Python, and with knobs that only look like knobs."""
    root = tmp_path_factory.mktemp("knobs")
    make_fake_tree(root)
    with system_with(root / "sys/kernel/mm/ksm", "bookworm", packages) as one:
        one.apt_get("install", "--no-install-recommends", "python3")
        yield one


@pytest.fixture(scope="session")
def ubuntus_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package for Ubuntu 24.04: built on a bare one, by the lines that docs/install.md has for it.

    The libraries were fetched before, for the system has no network.
    """
    tools, packaging, _ = commands_of_page("Debian 12")[0].splitlines()
    directory, source, wheels, root = (tmp_path_factory.mktemp(name) for name in ("built", "source", "wheels", "knobs"))
    tracked_source(source)
    locked_wheels(wheels, "3.12")
    make_fake_tree(root)
    with system_with(root / "sys/kernel/mm/ksm", UBUNTU, source, [(wheels, WHEELS)]) as one:
        one.apt_get("install", "--no-install-recommends", *tools.split()[2:])
        one.shell(f"cp -r {PACKAGES} {CHECKOUT}; cd {CHECKOUT}; PIP_NO_INDEX=1 PIP_FIND_LINKS={WHEELS} {packaging}")
        built = Path(f"/proc/{one.container.leader}/root{CHECKOUT}/build/packages")
        shutil.copytree(built, directory, dirs_exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def newest(packages: Path) -> Path:
    """The package as it is built."""
    return next(packages.glob("*_*_*.deb"))


@pytest.fixture
def bare(made_up: Installed) -> Iterator[Installed]:
    """The bare system; afterwards it is one again."""
    yield made_up
    made_up.container.ended("sh", "-c", f"{PURGE}; umount {CONFIG}; rm -rf {CONFIG} /etc/ksmtuned.conf")


@pytest.fixture(scope="session")
def rpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package for Fedora that is built on this machine."""
    need(shutil.which("rpmbuild") is not None, "rpmbuild, of the package rpm")
    return next(path for path in build(tmp_path_factory.mktemp("rpm"), "rpm") if path.match("ksmtuned-py-[0-9]*.rpm"))


@pytest.fixture(scope="session")
def unprivileged_rpm(rpm: Path) -> Path:
    """The package beside it, with which the service runs without root's rights."""
    return next(rpm.parent.glob("ksmtuned-py-unprivileged-*.rpm"))


@pytest.fixture
def root(tmp_path: Path) -> RpmRoot:
    """A root directory for rpm."""
    one = RpmRoot(tmp_path)
    one.fill()
    return one
