"""The package for Fedora and its kin: what is in it, and what its scripts do, in a root directory of its own."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.packages.conftest import build
from tests.packages.rpmroot import CALLED, RpmRoot, rpm_says
from tests.support.container import ROOT

pytestmark = pytest.mark.packages

OLD_CONF = "KSM_THRES_COEF=33\n"


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
def test_they_are_the_same_each_time(rpm: Path, tmp_path: Path) -> None:
    build(tmp_path, "rpm")
    one, other = ({path.name: path.read_bytes() for path in place.iterdir()} for place in (rpm.parent, tmp_path))
    assert {name.rpartition(".")[2] for name in one} == {"rpm", "json"}
    assert (len(one), one) == (4, other)


def test_it_is_installed_and_erased(rpm: Path, root: RpmRoot) -> None:
    (root.path / "etc/ksmtuned.conf").write_text(OLD_CONF)
    said = root.install(rpm)
    assert "/etc/ksmtuned.conf could not be taken along" in said  # that takes a Python
    assert root.calls() == ["systemctl daemon-reload", "systemctl preset ksmtuned-py.service"]
    listed = root.rpm("-ql", "ksmtuned-py").split()
    assert [name for name in listed if not (root.path / name[1:]).exists()] == []
    (root.path / "etc/ksmtuned-py/config.toml").write_text("# mine\n")
    root.command("usr/bin/ksmtuned-py", CALLED)
    for made in ("run/ksmtuned-py/status.json", "var/lib/ksmtuned-py/history.sqlite"):
        (root.path / made).parent.mkdir(parents=True, exist_ok=True)
        (root.path / made).touch()
    root.rpm("--erase", "ksmtuned-py")
    disabled = "systemctl disable --now ksmtuned-py.service"
    assert root.calls() == [disabled, "ksmtuned-py restore", "systemctl daemon-reload"]
    assert root.left() == ["etc/ksmtuned-py", "etc/ksmtuned-py/config.toml.rpmsave", "etc/ksmtuned.conf"]
