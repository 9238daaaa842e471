"""The script that builds packages says what it was asked wrongly and what it lacks, before it does anything."""

import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "packaging/build.sh"


def build(
    *words: str | Path, path: str = "/usr/bin:/bin", cwd: str | Path = "/", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the script with the commands of this path."""
    return subprocess.run(
        ["/usr/bin/bash", SCRIPT, *words],
        env={"PATH": path, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "wanted deb, rpm"),
        (("flatpak",), "not 'flatpak'"),
        (("deb", "--out"), "--out wants a value"),
        (("deb", "--flavour"), "--flavour wants a value"),
        (("deb", "--flavour", "vanilla"), "no flavour vanilla"),
        (("rpm", "--flavour", "private"), "rpm takes no --flavour"),
        (("wheel", "--fast", "yes"), "wheel takes no --fast"),
        (("deb", "here"), "here wants a value"),
        (("deb", "here--out", "/tmp"), "deb takes no here--out"),
        (("wheel", "*--out", "/tmp"), "wheel takes no *--out"),
        (("wheel", "--out", ""), "--out wants a value"),
        (("deb", "--flavour", "private; reboot"), "no flavour private; reboot"),
    ],
    ids=" ".join,
)
def test_who_asks_wrongly_is_told_how_to_ask(words: tuple[str, ...], why: str) -> None:
    done = build(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: packaging/build.sh deb")
    assert why in done.stderr.splitlines()[-1]


def test_help_is_no_mistake() -> None:
    done = build("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: packaging/build.sh deb")


@pytest.mark.parametrize("place", ["/dev/null", "/dev/null/below", "/proc"])
def test_where_nothing_can_be_written_is_told(place: str) -> None:
    done = build("wheel", "--out", place)
    assert done.returncode == 2, done.stderr
    assert place in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SOURCE_DATE_EPOCH", "yesterday"),
        ("SOURCE_DATE_EPOCH", "1 --to-command=reboot"),
        ("TMPDIR", "{place}/a place"),
        ("TMPDIR", "{place}/50%{_topdir}"),
        ("TMPDIR", "{place}/a\nb"),
        ("TMPDIR", "."),
        ("TMPDIR", "/nowhere"),
    ],
)
def test_an_environment_that_it_cannot_work_in_is_refused(name: str, value: str, tmp_path: Path) -> None:
    value = value.format(place=tmp_path, _topdir="{_topdir}")
    if str(tmp_path) in value:
        Path(value).mkdir()
    done = build("wheel", "--out", tmp_path / "out", cwd=tmp_path, **{name: value})
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.splitlines()[-1].startswith("build: ") or "\n" in value
    assert list((tmp_path / "out").iterdir()) == []
    assert list(tmp_path.rglob("tmp.*")) == []


@pytest.mark.parametrize("name", ["-", "--help", "-p", "a b", "$(reboot)", "a'\"b", "*", "a\nb", "ü"])
def test_whatever_the_directory_is_called_it_is_that_one(name: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    done = build(
        "wheel",
        "--out",
        name,
        cwd=tmp_path,
        SOURCE_DATE_EPOCH="never",
        CDPATH="/usr",
        OLDPWD=str(tmp_path / "elsewhere"),
    )
    assert (done.returncode, done.stderr) == (2, "build: SOURCE_DATE_EPOCH is no time: never\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "elsewhere"])
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "command", "package"), [("deb", "dpkg-buildpackage", "dpkg-dev"), ("rpm", "rpmbuild", "rpm")]
)
def test_what_is_missing_is_told_with_its_package(kind: str, command: str, package: str, tmp_path: Path) -> None:
    for name in ("dirname", "mkdir", "mktemp", "git", "stat", "rm", "sed", "apt-cache", "dpkg"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    done = build(kind, "--out", tmp_path / "out", path=str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"build: no {command} here; on Debian: apt-get install ")
    assert package in done.stderr.split()


def test_the_rpm_wants_what_the_project_wants() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {f"python3-{each.replace('>=', ' >= ')}" for each in project["dependencies"]}
    spec = (ROOT / "packaging/rpm/ksmtuned-py.spec").read_text().partition("\n%package ")[0]
    named = {line.split(":", 1)[1].strip() for line in spec.splitlines() if line.startswith("Requires:")}
    named = {each.replace("_client", "-client") for each in named if not each.startswith("python(abi)")}
    assert named == wanted
