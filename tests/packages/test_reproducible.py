"""Two builds of one source are equal, byte by byte; and what each is made of is beside it."""

import json
import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.packages.conftest import LOCK, build
from tests.support.container import ROOT

pytestmark = pytest.mark.packages

UPLOT = ("uplot", *re.findall(r"\(v([\d.]+)\)", (ROOT / "ksmtuned_py/publish/page/uplot.min.js").read_text()[:100]))
"""The page's library, which is in every package, and its version."""


def contents(directory: Path) -> dict[str, str]:
    """What is in the files of a directory, by its hash. Other tests unpack packages beside them."""
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in directory.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and its source."""
    directory = tmp_path_factory.mktemp("wheel")
    build(directory, "wheel")
    return directory


@pytest.mark.packages_long
def test_a_wheel_and_its_source(wheel: Path, tmp_path: Path) -> None:
    os.utime(ROOT / "pyproject.toml")  # another time of a file is no other package
    build(tmp_path, "wheel")
    one, other = contents(wheel), contents(tmp_path)
    assert {name.rpartition(".")[2] for name in one} == {"whl", "gz", "json"}
    assert one == other


@pytest.mark.packages_long
def test_a_deb(packages: Path, tmp_path: Path) -> None:
    build(tmp_path, "deb")
    one, other = map(contents, (packages, tmp_path))
    assert {name.rpartition(".")[2] for name in other} == {"deb", "json", "txt"}
    assert {name: one[name] for name in other} == other


def bill_of(directory: Path, name: str = "*") -> dict[str, Any]:
    """The one list in there of that name; CycloneDX' schema has nothing against it, and all in it has a licence."""
    [file] = directory.glob(f"{name}.cdx.json")
    text = file.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    bill: dict[str, Any] = json.loads(text)
    assert [each["name"] for each in bill["components"] if not each["licenses"]] == []
    return bill


def test_a_list_that_is_wrong_would_be_found(packages: Path) -> None:
    text = next(packages.glob("*.cdx.json")).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text.replace('"purl"', '"url"')) is not None


def test_who_brings_nothing_along_names_no_versions(wheel: Path, rpm: Path) -> None:
    locked = set(re.findall(r"(?m)^([\w.-]+)==", LOCK.read_text()))
    for directory, name in ((wheel, "*"), (rpm.parent, rpm.stem)):
        bill = bill_of(directory, name)
        assert {each["name"] for each in bill["components"]} == locked | {"uplot"}
        assert [each["name"] for each in bill["components"] if "version" in each] == ["uplot"]
        wanted = {each["name"]: each["properties"][0]["value"] for each in bill["components"] if "properties" in each}
        assert (wanted["psutil"], len(wanted)) == (">=5.9", 6)


def test_what_the_rpm_without_rights_is_made_of(unprivileged_rpm: Path) -> None:
    bill = bill_of(unprivileged_rpm.parent, unprivileged_rpm.stem)
    assert bill["metadata"]["component"]["name"] == "ksmtuned-py-unprivileged"
    [ours] = bill["components"]
    wanted = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    assert wanted[bill["metadata"]["component"]["bom-ref"]] == [ours["bom-ref"]]
    assert ours["name"] == "ksmtuned-py"


def test_what_it_is_made_of(packages: Path) -> None:
    bill = bill_of(packages)
    locked = set(re.findall(r"(?m)^([\w.-]+)==([\w.]+)", LOCK.read_text()))
    assert {(each["name"], each["version"]) for each in bill["components"]} == locked | {UPLOT}
    wanted = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    reached = set(wanted[bill["metadata"]["component"]["bom-ref"]])
    while more := {other for each in reached for other in wanted[each]} - reached:
        reached |= more
    assert reached == {each["bom-ref"] for each in bill["components"]}  # nothing that nobody wants


def test_the_licences_come_along(packages: Path) -> None:
    text = next(packages.glob("*.licences.txt")).read_text()
    for name, version in [*re.findall(r"(?m)^([\w.-]+)==([\w.]+)", LOCK.read_text()), UPLOT]:
        _, _, own = text.partition(f"\n{name} {version}\n{'=' * 79}\n")
        assert len(own.partition("=" * 79)[0]) > 300, f"no licence of {name}"
