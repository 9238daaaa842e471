"""The distributions' own checkers find nothing in the packages but what is explained beside them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.container import ROOT
from tests.support.need import need

pytestmark = pytest.mark.packages

SPEC, FILTERS = "packaging/rpm/ksmtuned-py.spec", "packaging/rpm/ksmtuned-py.rpmlintrc"


def says(*command: str | Path) -> tuple[int, str]:
    """The exit code of a checker, and all that it says."""
    need(shutil.which(str(command[0])) is not None, str(command[0]))
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False
    )
    return done.returncode, done.stdout


def lintian(package: Path, *options: str) -> tuple[int, str]:
    """What lintian finds in a package, but for what it only notes."""
    return says("lintian", "--profile=debian", "--fail-on=error,warning", "--allow-root", *options, package)


def rpmlint(*files: str | Path) -> tuple[int, str]:
    """What rpmlint finds."""
    return says("rpmlint", "--strict", f"--rpmlintrc={FILTERS}", *files)


def test_lintian_has_nothing_against_the_deb(packages: Path) -> None:
    assert lintian(next(packages.glob("*_*_*.deb"))) == (0, "")


@pytest.mark.parametrize("name", ["packaging/debian/ksmtuned-py.lintian-overrides", FILTERS])
def test_each_exception_has_its_reason_above_it(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    assert re.fullmatch(r"(#+ +(\S.+)\n([^#\n].*\n)+)+", "\n".join([*lines, ""]))


def test_rpmlint_has_nothing_against_the_rpms_and_their_recipe(rpm: Path, unprivileged_rpm: Path) -> None:
    code, said = rpmlint(SPEC, rpm, unprivileged_rpm)
    assert (code, "; 0 errors, 0 warnings," in said) == (0, True), said


@pytest.mark.parametrize("name", ["POSTIN", "PREUN", "POSTUN"])
def test_shellcheck_has_nothing_against_the_scripts_of_the_rpms(name: str, rpm: Path, unprivileged_rpm: Path) -> None:
    need(shutil.which("shellcheck") is not None, "shellcheck")
    for package in (rpm, unprivileged_rpm):
        script = subprocess.run(
            ["rpm", "-qp", "--queryformat", f"%{{{name}}}", package], capture_output=True, text=True, check=True
        ).stdout
        done = subprocess.run(
            ["shellcheck", "--shell=sh", "-"], input=script, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "")
