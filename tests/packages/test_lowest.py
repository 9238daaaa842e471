"""The oldest libraries that the project claims to work with do: all at once, in an environment of their own."""

import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packages.conftest import LOCK
from tests.support.container import ROOT
from tests.support.trees import make_fake_tree
from tests.support.workers import RINGS

pytestmark = pytest.mark.packages_long

EXTRAS = ("systemd", "scan", "trace", "bench", "test")
"""Without libvirt: its library has to be as new as the libvirt of the machine."""


def lowest() -> Iterator[str]:
    """Every library that pyproject.toml wants, at the oldest version that it takes. Checkers may be newer."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in [
        *project["dependencies"],
        *(each for name in EXTRAS for each in project["optional-dependencies"][name]),
    ]:
        if not wanted.startswith(("mypy", "ruff", "types-")):
            name, oldest = wanted.split(">=")
            yield f"{name.partition('[')[0]}=={oldest}"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of that environment."""
    directory = tmp_path_factory.mktemp("lowest")
    (directory / "lowest.txt").write_text("\n".join(lowest()))
    subprocess.run(["/usr/bin/python3", "-m", "venv", directory / "venv"], check=True)
    pip: list[str | Path] = [directory / "venv/bin/pip", "--quiet", "install", "--constraint", directory / "lowest.txt"]
    subprocess.run([*pip, "--editable", f"{ROOT}[{','.join(EXTRAS)}]"], check=True)
    return directory / "venv/bin/python"


def test_the_pure_ring_passes(python: Path) -> None:
    others = (*sorted(RINGS), "repository/test_house.py", "repository/test_site.py")
    ignored = [f"--ignore=tests/{other}" for other in others]
    marks = "not emulated and not packages_long"
    command: list[str | Path] = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marks, "tests", *ignored]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]


def test_it_runs(python: Path, tmp_path: Path) -> None:
    make_fake_tree(tmp_path / "root")
    places: list[str | Path] = [
        "--root",
        tmp_path / "root",
        "--runtime-dir",
        tmp_path / "run",
        "--config-dir",
        tmp_path,
    ]
    done = subprocess.run(
        [python, "-m", "ksmtuned_py", "run", *places, "--once", "--dry-run"],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0


@pytest.mark.parametrize("python_version", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("processor", ["x86_64", "aarch64"])
def test_what_a_package_brings_along_is_there_for_every_python(
    python: Path, python_version: str, processor: str, tmp_path: Path
) -> None:
    platforms = [f"--platform={each}_{processor}" for each in ("manylinux2014", "manylinux_2_17", "manylinux_2_28")]
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", f"--python-version={python_version}", *platforms]
    command: list[str | Path] = [
        python,
        "-m",
        "pip",
        "--quiet",
        "download",
        *options,
        "--dest",
        tmp_path,
        "--requirement",
        LOCK,
    ]
    subprocess.run(command, check=True)
    assert len(list(tmp_path.iterdir())) == LOCK.read_text().count("==")
