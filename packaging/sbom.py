#!/usr/bin/env python3
"""Writes what a package is made of: a CycloneDX list of its libraries, and their licences.

    packaging/sbom.py NAME [SITE_PACKAGES [DEBIAN]]
    packaging/sbom.py --addition PACKAGE NAME
    packaging/sbom.py --licences SITE_PACKAGES

NAME.cdx.json lists the libraries of packaging/lock/requirements.txt with their licences, and uPlot, which draws the
page's charts and is in every package. With SITE_PACKAGES, where the others came along, it has their versions, too, and
NAME.licences.txt has the licences' texts. Without, the libraries are the machine's own, of whatever version. DEBIAN is
a list of Debian's packages that came along, too, each as NAME=VERSION. The same input gives the same bytes.

--addition is for a package that has no libraries, and wants ours: NAME.cdx.json says so.

--licences prints the licences of what is installed there, for packaging/lock.sh to keep.
"""

import json
import os
import re
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from tomllib import loads
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "packaging/lock/requirements.txt"
LICENCES = ROOT / "packaging/lock/licences.json"
PAGE = ROOT / "ksmtuned_py/publish/page"
PROJECT = loads((ROOT / "pyproject.toml").read_text())["project"]
[VERSION] = re.findall(r'(?m)^__version__ = "(.*)"', (ROOT / "ksmtuned_py/__init__.py").read_text())
OURS = "ksmtuned-py"
OUR_LICENCE = [{"expression": PROJECT["license"]["text"]}]
LICENCE_FILES = re.compile(r"(licen[cs]e|copying|notice|authors)[^/]*$", re.IGNORECASE)


@dataclass
class Library:
    """One library of the lock file."""

    name: str
    version: str
    """Empty where it is the machine's own."""
    wanted_by: set[str] = field(default_factory=set)
    source: str = "pypi"

    @property
    def url(self) -> str:
        """What names it in any such list."""
        return f"pkg:{self.source}/{quote(self.name)}@{quote(self.version, safe=':')}".removesuffix("@")


def page_library() -> Library:
    """The one library of the page, with the version that the head of its file says."""
    [version] = re.findall(r"\(v([\d.]+)\)", (PAGE / "uplot.min.js").read_text(encoding="utf-8")[:100])
    return Library("uplot", version, {OURS}, "npm")


def page_licence() -> str:
    """The text of its licence."""
    return _headed(page_library()) + (PAGE / "uplot.LICENSE.txt").read_text(encoding="utf-8") + "\n"


def parse_lock(text: str) -> list[Library]:
    """The libraries of a file of pip-compile's, with who wants them."""
    libraries: list[Library] = []
    for line in text.splitlines():
        if found := re.match(r"([\w.-]+)==([^ ;\\]+)", line):
            libraries.append(Library(found[1], found[2]))
        elif libraries and (said := re.match(r" +# +(?:via )?([\w.-]+)", line)) and said[1] != "via":
            libraries[-1].wanted_by.add(said[1])
    return libraries


def parse_debian(text: str) -> list[Library]:
    """Debian's packages."""
    return [Library(*line.split("=", 1), source="deb/debian") for line in sorted(text.splitlines())]


def installed(site_packages: Path) -> dict[str, Distribution]:
    """What is installed there, by its name as the lock file has it."""
    found = distributions(path=[str(site_packages)])
    return {re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower(): each for each in found}


def licence_of(library: Distribution) -> list[dict[str, Any]]:
    """Its licence as the list has it: an expression, or a name."""
    said = library.metadata
    if expression := said.get("License-Expression"):
        return [{"expression": expression}]
    classified = [line.rpartition(" :: ")[2] for line in said.get_all("Classifier") or () if "License ::" in line]
    names = classified or [said.get("License", "").partition("\n")[0]]
    return [{"license": {"name": name}} for name in names if name]


def bill(
    libraries: list[Library], licences: dict[str, list[dict[str, Any]]], debian: list[Library] | None = None
) -> dict[str, Any]:
    """The list as CycloneDX wants it. What the licences of Debian's packages are stands in the packages."""
    ours = Library(OURS, VERSION)
    components = [_component(library, "library", licences[library.name]) for library in libraries]
    components += [_component(package, "library", []) for package in debian or ()]
    wants = {
        library.url: sorted(each.url for each in libraries if library.name in each.wanted_by)
        for library in (ours, *libraries)
    }
    return _document(ours, components, wants)


def addition(package: str) -> dict[str, Any]:
    """The list of a package of some files of ours, which wants the package with the program."""
    it, ours = Library(package, VERSION, source="rpm"), Library(OURS, VERSION)
    return _document(it, [_component(ours, "application", OUR_LICENCE)], {it.url: [ours.url], ours.url: []})


def _document(of: Library, components: list[dict[str, Any]], wants: dict[str, list[str]]) -> dict[str, Any]:
    made = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, of.url + json.dumps(components))}",
        "version": 1,
        "metadata": {"timestamp": made.isoformat(), "component": _component(of, "application", OUR_LICENCE)},
        "components": components,
        "dependencies": [{"ref": who, "dependsOn": wanted} for who, wanted in wants.items()],
    }


def _component(library: Library, kind: str, licences: list[dict[str, Any]]) -> dict[str, Any]:
    entry = {"type": kind, "bom-ref": library.url, "name": library.name, "purl": library.url, "licenses": licences}
    if library.version:
        return entry | {"version": library.version}
    (wanted,) = [each for each in PROJECT["dependencies"] if each.startswith(library.name)] or [""]
    limits = wanted.removeprefix(library.name)
    return entry | ({"properties": [{"name": "ksmtuned-py:wanted", "value": limits}]} if limits else {})


def licences(libraries: list[Library], found: dict[str, Distribution]) -> Iterator[str]:
    """The texts, library by library."""
    for library in libraries:
        here = found[library.name]
        names = sorted(str(path) for path in here.files or () if LICENCE_FILES.search(str(path)))
        yield _headed(library)
        for name in names:
            yield f"{name}\n\n{here.read_text(_inside(name)) or ''}\n"


def _headed(library: Library) -> str:
    return f"{'=' * 79}\n{library.name} {library.version}\n{'=' * 79}\n"


def _inside(name: str) -> str:
    """The file's name below the library's own record."""
    return name.partition(".dist-info/")[2]


def main() -> None:
    """Writes beside the package of that name."""
    name, *site_packages = sys.argv[1:]
    if name == "--addition":
        write(site_packages[1], addition(site_packages[0]))
        return
    found = installed(Path(site_packages[0])) if site_packages else {}
    if name == "--licences":
        kept = {each: licence_of(found[each]) for each in found} | {"uplot": [{"expression": "MIT"}]}
        sys.stdout.write(json.dumps(kept, indent=2, sort_keys=True) + "\n")
        return
    libraries = parse_lock(LOCK.read_text())
    if found:
        Path(f"{name}.licences.txt").write_text(
            "".join([*licences(libraries, found), page_licence()]), encoding="utf-8"
        )
    else:
        libraries = [Library(each.name, "", each.wanted_by) for each in libraries]
    debian = parse_debian(Path(site_packages[1]).read_text()) if site_packages[1:] else []
    write(name, bill([*libraries, page_library()], json.loads(LICENCES.read_text()), debian))


def write(name: str, made_of: dict[str, Any]) -> None:
    """Writes a list beside the package of that name."""
    Path(f"{name}.cdx.json").write_text(json.dumps(made_of, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
