"""Two builds of one source are equal, byte by byte; and what each is made of is beside it."""

import json
import os
import re
from pathlib import Path

import pytest

from tests.packages.conftest import build
from tests.support.container import ROOT

pytestmark = pytest.mark.packages

LOCK = ROOT / "packaging/lock/requirements.txt"


def contents(directory: Path) -> dict[str, bytes]:
    """The files of a directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_wheel_and_its_source(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        build(tmp_path / name, "wheel")
        os.utime(ROOT / "pyproject.toml")  # another time of a file is no other package
    one, other = contents(tmp_path / "one"), contents(tmp_path / "other")
    assert {name.rpartition(".")[2] for name in one} == {"whl", "gz", "json"}
    assert one == other


def test_a_deb(twice: list[Path]) -> None:
    one, other = map(contents, twice)
    assert {name.rpartition(".")[2] for name in other} == {"deb", "json", "txt"}
    assert {name: one[name] for name in other} == other


def test_what_it_is_made_of(packages: Path) -> None:
    bill = json.loads(next(packages.glob("*.cdx.json")).read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    locked = set(re.findall(r"(?m)^([\w.-]+)==([\w.]+)", LOCK.read_text()))
    assert {(each["name"], each["version"]) for each in bill["components"]} == locked
    assert [each["name"] for each in bill["components"] if not each["licenses"]] == []
    wanted = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    reached = set(wanted[bill["metadata"]["component"]["bom-ref"]])
    while more := {other for each in reached for other in wanted[each]} - reached:
        reached |= more
    assert reached == {each["bom-ref"] for each in bill["components"]}  # nothing that nobody wants


def test_the_licences_come_along(packages: Path) -> None:
    text = next(packages.glob("*.licences.txt")).read_text()
    for name, version in re.findall(r"(?m)^([\w.-]+)==([\w.]+)", LOCK.read_text()):
        _, _, own = text.partition(f"\n{name} {version}\n{'=' * 79}\n")
        assert len(own.partition("=" * 79)[0]) > 300, f"no licence of {name}"
