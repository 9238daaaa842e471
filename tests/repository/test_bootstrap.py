"""The set-up script says why it cannot set up. That it can is shown by every run of the suite with it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.need import need

SCRIPT = Path(__file__).parent.parent.parent / "packaging" / "bootstrap.sh"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The directory of commands of a machine without installed packages and without a network."""
    for name in ("dirname", "tail", "cat", "bash"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    add_command(tmp_path, "dpkg-query", "exit 1")
    add_command(tmp_path, "apt-get", "echo 'Temporary failure resolving'; exit 100")
    return tmp_path


def add_command(machine: Path, name: str, script: str) -> None:
    """Puts a stand-in for a command on the machine."""
    (machine / name).write_text(f"#!/bin/sh\n{script}\n")
    (machine / name).chmod(0o755)


def bootstrap(machine: Path, *arguments: str, within: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Runs the script with this machine's commands alone."""
    return subprocess.run(
        [*within, "/usr/bin/bash", SCRIPT, *arguments],
        env={"PATH": str(machine)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_verb_is_bad_usage(machine: Path) -> None:
    done = bootstrap(machine)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: packaging/bootstrap.sh run")


def test_another_system_is_told_what_it_lacks(machine: Path) -> None:
    (machine / "apt-get").unlink()
    done = bootstrap(machine, "run")
    assert done.returncode == 1
    assert done.stderr.startswith("bootstrap: no apt-get here: this script is for Debian 12 or newer")


def test_without_a_network_the_last_words_are_shown(machine: Path) -> None:
    need(os.geteuid() == 0, "root, or the script stops before")
    done = bootstrap(machine, "setup")
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert said[0].startswith("bootstrap: installing ca-certificates gcc ")
    assert said[1] == "Temporary failure resolving"
    assert said[2] == "bootstrap: 'apt-get update' failed (its last lines are above); is there a network?"


def test_who_may_not_install_is_told_what_is_missing(machine: Path) -> None:
    done = bootstrap(machine, "run", within=("/usr/bin/unshare", "--user"))  # in that namespace root is nobody
    assert done.returncode == 1
    assert done.stderr.startswith("bootstrap: only root can install: ca-certificates gcc ")


def test_a_checkout_that_nobody_may_enter_is_not_tested(machine: Path) -> None:
    need(os.geteuid() == 0, "root, whose tests run as nobody")
    add_command(machine, "setpriv", "exit 1")
    done = bootstrap(machine, "test")
    assert done.returncode == 1
    assert done.stderr.startswith("bootstrap: some tests run as nobody, who may not enter ")
