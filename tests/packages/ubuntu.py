"""The package for Ubuntu 24.04: built on a bare one, by the lines that docs/install.md has for it."""

import shutil
from pathlib import Path

import pytest

from tests.packages.conftest import (
    PACKAGES,
    WHEELS,
    commands_of_page,
    locked_wheels,
    system_with,
    tracked_source,
)
from tests.support.roots import UBUNTU
from tests.support.trees import make_fake_tree

CHECKOUT = "/srv/checkout"


def build_on_ubuntu(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Puts the package into this directory. The libraries were fetched before, for the system has no network."""
    tools, packaging, _ = commands_of_page("Debian 12")[0].splitlines()
    source = tracked_source(tmp_path_factory.mktemp("source"))
    wheels = locked_wheels(tmp_path_factory.mktemp("wheels"), "3.12")
    knobs = make_fake_tree(tmp_path_factory.mktemp("knobs")) / "sys/kernel/mm/ksm"
    with system_with(knobs, UBUNTU, source, [(wheels, WHEELS)]) as one:
        one.apt_get("install", "--no-install-recommends", *tools.split()[2:])
        one.shell(f"cp -r {PACKAGES} {CHECKOUT}; cd {CHECKOUT}; PIP_NO_INDEX=1 PIP_FIND_LINKS={WHEELS} {packaging}")
        built = Path(f"/proc/{one.container.leader}/root{CHECKOUT}/build/packages")
        shutil.copytree(built, directory, dirs_exist_ok=True)
