"""The package for Fedora and its kin: what is in it, and what its scripts do, in a root directory of its own."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.packages.conftest import build
from tests.support.container import ROOT

pytestmark = pytest.mark.packages

SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >> /calls
"""
COMMAND = """#!/bin/sh
echo "ksmtuned-py $*" >> /calls
"""
OLD_CONF = "KSM_THRES_COEF=33\n"


def rpm_says(*words: str | Path) -> str:
    """What rpm says on both streams; it has to end well."""
    done = subprocess.run(
        ["rpm", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def held(packages: Path) -> set[str]:
    """The files of the Debian package."""
    deb = next(packages.glob("*_*_*.deb"))
    listing = subprocess.run(["dpkg-deb", "--contents", deb], capture_output=True, text=True, check=True).stdout
    return {line.split()[5][1:] for line in listing.splitlines() if not line.startswith("d")}


def test_the_deb_holds_every_file_of_the_program(packages: Path) -> None:
    command = ["git", "ls-files", "--", "ksmtuned_py"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    packaged = {name.rpartition("/site-packages/")[2] for name in held(packages)}
    assert [name for name in tracked if name not in packaged] == []


def test_where_every_file_goes_is_told(packages: Path) -> None:
    table = (ROOT / "docs/install.md").read_text().partition("\n## Where every file goes\n")[2].partition("\n## ")[0]
    places = re.findall(r"`(/\S+)`", table)
    of_checkers = "/usr/share/lintian/"
    assert [name for name in held(packages) if not name.startswith((of_checkers, *places))] == []


def test_it_holds_what_the_deb_holds(rpm: Path, packages: Path) -> None:
    packaged = held(packages)
    brought = re.compile(r"/usr/lib/ksmtuned-py/(?!lib/python3\.\d+/site-packages/ksmtuned_py)")
    of_debians_own = re.compile(r"/usr/share/(lintian/|doc/ksmtuned-py/(copyright|changelog\.gz)$)")
    packaged = {name for name in packaged if not brought.match(name) and not of_debians_own.match(name)}
    details = rpm_says("-qp", "--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\n]", rpm).splitlines()
    files = {line.split()[1] for line in details if not line.startswith("d")}
    assert "/usr/share/man/man1/ksmtuned-py.1" in files
    assert "/usr/share/zsh/site-functions/_ksmtuned-py" in files
    assert files - {"/usr/share/licenses/ksmtuned-py/LICENSE"} == {as_in_the_rpm(name) for name in packaged}


def as_in_the_rpm(name: str) -> str:
    """Where the other package has it. Debian compresses manual pages."""
    name = re.sub(r"^/usr/lib/ksmtuned-py/lib/(python3\.\d+/site-packages/)", r"/usr/lib/\1", name)
    name = re.sub(r"^(/usr/share/man/.*\.[15])\.gz$", r"\1", name)
    return name.replace("zsh/vendor-completions", "zsh/site-functions")


def test_it_is_for_the_python_it_was_built_for(rpm: Path) -> None:
    (version,) = set(re.findall(r"/python(3\.\d+)/site-packages/ksmtuned_py/", rpm_says("-qpl", rpm)))
    assert f"python(abi) = {version}\n" in rpm_says("-qp", "--requires", rpm)


@pytest.mark.packages_long
def test_it_is_the_same_each_time(rpm: Path, tmp_path: Path) -> None:
    other = next(path for path in build(tmp_path, "rpm") if path.suffix == ".rpm")
    assert other.read_bytes() == rpm.read_bytes()
    bills = [next(directory.glob("*.cdx.json")).read_bytes() for directory in (rpm.parent, tmp_path)]
    assert bills[0] == bills[1]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root directory of a system with a shell, on which a systemd seems to run and ksmtuned has been configured."""
    for directory in ("bin", "dev", "etc", "run/systemd/system", "tmp"):
        (tmp_path / directory).mkdir(parents=True)
    subprocess.run(["cp", "/bin/busybox", tmp_path / "bin/sh"], check=True)
    for name in ("mv", "rm", "rmdir", "cat", "echo", "["):
        (tmp_path / "bin" / name).symlink_to("sh")
    (tmp_path / "dev/null").touch()
    (tmp_path / "bin/systemctl").write_text(SYSTEMCTL)
    (tmp_path / "bin/systemctl").chmod(0o755)
    (tmp_path / "etc/ksmtuned.conf").write_text(OLD_CONF)
    return tmp_path


def calls(root: Path) -> list[str]:
    """What its scripts have called since the last time."""
    file = root / "calls"
    said = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return said


def test_it_is_installed_and_erased(rpm: Path, root: Path) -> None:
    said = rpm_says("--root", root, "--install", "--nodeps", rpm)
    assert "/etc/ksmtuned.conf could not be taken along" in said  # that takes a Python
    assert calls(root) == ["systemctl daemon-reload", "systemctl preset ksmtuned-py.service"]
    listed = rpm_says("--root", root, "-ql", "ksmtuned-py").split()
    assert [name for name in listed if not (root / name[1:]).exists()] == []
    (root / "etc/ksmtuned-py/config.toml").write_text("# mine\n")
    (root / "usr/bin/ksmtuned-py").write_text(COMMAND)
    for made in ("run/ksmtuned-py/status.json", "var/lib/ksmtuned-py/history.sqlite"):
        (root / made).parent.mkdir(parents=True, exist_ok=True)
        (root / made).touch()
    rpm_says("--root", root, "--erase", "ksmtuned-py")
    disabled = "systemctl disable --now ksmtuned-py.service"
    assert calls(root) == [disabled, "ksmtuned-py restore", "systemctl daemon-reload"]
    left = [str(path.relative_to(root)) for path in root.rglob("*") if "ksmtuned" in str(path.relative_to(root))]
    assert sorted(left) == ["etc/ksmtuned-py", "etc/ksmtuned-py/config.toml.rpmsave", "etc/ksmtuned.conf"]
