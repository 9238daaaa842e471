"""TAB in a shell of a bare system completes the installed command's words: as whoever logs in there meets it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.packages.conftest import PURGE, Installed
from tests.packages.test_upgrades import install
from tests.support.process import wait_for
from tests.support.terminal import Terminal
from tests.support.unit import SECONDS

pytestmark = pytest.mark.packages_long

ZSHRC = "autoload -Uz compinit && compinit"
SHELLS = {"bash": ("bash", "bash-completion"), "zsh": ("zsh", "zsh")}
"""The command, and the package that Debian has it or its completion in."""
READY = "shell is ready"


@pytest.fixture(scope="module")
def installed(made_up: Installed, newest: Path) -> Iterator[Installed]:
    """The package, and both shells."""
    made_up.apt_get("install", "--no-install-recommends", *(package for _, package in SHELLS.values()))
    install(made_up, newest)
    made_up.shell(f"echo '{ZSHRC}' > /root/.zshrc; mkdir -p /root/place/mine.d; touch /root/place/mine.toml")
    yield made_up
    made_up.shell(PURGE)


@contextmanager
def login(installed: Installed, shell: str) -> Iterator[Terminal]:
    """A shell of root's, in a with block, which waits for keys."""
    environment = [
        "HOME=/root",
        "TERM=xterm",
        "PS1=> ",
        "LC_ALL=C.UTF-8",
        "PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]
    command = installed.container.inside("env", "-i", *environment, shell, "--login", "-i")
    with Terminal(command, size=(120, 60)) as terminal:
        terminal.press("cd /root/place; echo 'shell is' ready\n")
        terminal.wait(f"\n{READY}")
        try:
            yield terminal
        finally:
            terminal.press("\x15exit\n")  # whoever came from outside is waited for at the end of a container
            terminal.end()


def completed(terminal: Terminal, typed: str, line: str) -> None:
    """Types something and TAB; the line then has to be that. The next begins anew."""
    terminal.press(f"{typed}\t")
    terminal.wait(line)
    terminal.press("\x15")  # Ctrl-U


@pytest.mark.parametrize("shell", SHELLS)
def test_verbs_options_and_files_are_completed(installed: Installed, shell: str) -> None:
    with login(installed, shell) as terminal:
        completed(terminal, "ksmtuned-py che", "ksmtuned-py check ")
        completed(terminal, "ksmtuned-py check --sh", "ksmtuned-py check --show ")
        completed(terminal, "ksmtuned-py check mine.t", "ksmtuned-py check mine.toml ")
        completed(terminal, "ksmtuned-py check --config-dir mi", "ksmtuned-py check --config-dir mine.d")


@pytest.mark.parametrize("shell", SHELLS)
def test_all_verbs_are_shown(installed: Installed, shell: str) -> None:
    listed = installed.shell("ksmtuned-py --help").partition("\ncommands:\n")[2]
    verbs = {line.split()[0] for line in listed.splitlines() if line.startswith("    ") and line[4] != " "}
    assert {"capacity", "guests", "why"} <= verbs
    with login(installed, shell) as terminal:
        terminal.press("ksmtuned-py \t\t")
        wait_for(lambda: verbs <= set(terminal.text().split()), SECONDS, f"{verbs} on:\n{terminal.text()}")
