"""A captured host on which the commands of the documentation run as they are written, with a daemon at work on it.

Its configuration is the one that the package installs, and so is its unit.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import OURS, Command, verb_parsers
from tests.support.daemon import EVENTS_ONLY, Daemon
from tests.support.trees import captured_tree, put

HOST_FILE = re.compile(r"(?<![\w.])/(?:sys|proc|etc|usr/lib/systemd)/[^\s'\";|)<>]*")
"""What begins with /sys/, /proc/, /etc/ or the like is one of the captured host's."""
ROOT = Path(__file__).parent.parent.parent
INSTALLED = {
    "config/config.toml": "etc/ksmtuned-py/config.toml",
    "packaging/10-observe.toml": "etc/ksmtuned-py/config.d/10-observe.toml",
    "systemd/ksmtuned-py.service": "usr/lib/systemd/system/ksmtuned-py.service",
    "tests/data/legacy/debian.conf": "etc/ksmtuned.conf",
}
GUEST, GUEST_PID = "web", 26131
"""A guest of the captured host."""
FOUND_NOTHING = re.compile(r"\b(grep|doctor)\b")
"""Who says by exit code 1 that there was nothing to find, or something."""


@dataclass(frozen=True)
class Stage:
    """The host: its tree has proc, sys and etc."""

    tree: Path
    programs: Path

    def run(self, command: Command) -> "subprocess.CompletedProcess[str]":
        """Runs a command; its files are those of the tree, and in what it prints they have their own names again."""
        line = HOST_FILE.sub(lambda found: f"{self.tree}{found[0]}", self.filled(command.line))
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=self.programs,
            env={"PATH": f"{self.programs}:/usr/bin:/bin", "COLUMNS": "200", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        done.stdout = done.stdout.replace(str(self.tree), "")
        return done

    def lacks(self, command: Command) -> list[str]:
        """Returns the files of a command that the captured host does not have."""
        files = HOST_FILE.findall(self.filled(command.line))
        return [file for file in files if not any(self.tree.glob(file.lstrip("/")))]

    @staticmethod
    def filled(line: str) -> str:
        """Returns the line with the captured guest in place of GUEST and PID."""
        return re.sub(r"\bPID\b", str(GUEST_PID), re.sub(r"\bGUEST\b", GUEST, line))


def failed(command: Command, done: "subprocess.CompletedProcess[str]") -> bool:
    """Whether it ended otherwise than it may."""
    return done.returncode not in ((0, 1) if FOUND_NOTHING.search(command.line) else (0,))


@contextmanager
def stage(directory: Path) -> Iterator[Stage]:
    """Yields the host; the daemon ends with it."""
    tree = captured_tree("6.18", directory)
    for source, place in INSTALLED.items():
        put(tree, place, (ROOT / source).read_text())
    config = tree / "etc" / OURS / "config.toml"
    programs = directory / "programs"
    programs.mkdir()
    with Daemon(directory / "daemon", EVENTS_ONLY, root=tree) as daemon:
        daemon.wait_ticks()
        _write_program(programs / OURS, {"--root": tree, "--runtime-dir": daemon.runtime, "--config": config})
        yield Stage(tree, programs)


def _write_program(path: Path, places: dict[str, Path]) -> None:
    """Writes a ksmtuned-py that looks at these places where its verb can be told to, and it was not."""
    arms = []
    for verb, parser in verb_parsers().items():
        options = [f"{option} '{place}'" for option, place in places.items() if option in parser._option_string_actions]
        arms.append(f'{verb}) set -- {" ".join(options)} "$@" ;;')
    file = f'case " $* " in *.toml*) ;; *) set -- "$@" \'{places["--config"]}\' ;; esac'
    script = [
        "#!/bin/sh",
        "verb=$1",
        "shift",
        'case "$verb" in',
        *arms,
        "esac",
        f'[ "$verb" != check ] || {file}',
        f'exec {sys.executable} -m ksmtuned_py "$verb" "$@"',
    ]
    path.write_text("\n".join(script) + "\n")
    path.chmod(0o755)
