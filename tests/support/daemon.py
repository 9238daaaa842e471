"""The daemon as a real process, and the other verbs beside it, on a made-up tree or on the real machine."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.support.process import HasDescriptor, Program, wait_for

KSMTUNED = [sys.executable, "-m", "ksmtuned_py"]
Sections = Mapping[str, Mapping[str, object]]
QUIET: Sections = {"metrics": {"address": ""}, "kernel": {"ksmd_nice": "keep"}}
"""Without a port, so that tests do not meet on one. And ksmd works as it comes, however busy other tests are."""
MEMORY_FIRST: Sections = {"adaptive": {"profile": "eager"}}
"""Merging at all times, also where memory is plenty and guests have huge pages."""
QUICK: Sections = {**QUIET, "daemon": {"tick_seconds": 0.02, "idle_tick_seconds": 0.02}}
EVENTS_ONLY: Sections = {**QUIET, "daemon": {"tick_seconds": 600, "idle_tick_seconds": 600}}
"""The first tick comes by itself, and any other one because something happened."""
# Another user, who may read everything (a checkout may lie anywhere) but write nothing.
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] + [
    f"--{kind}=-all,+dac_read_search" for kind in ("bounding-set", "inh-caps", "ambient-caps")
]


def unprivileged() -> list[str]:
    """Returns what to put before a command so that it runs without rights."""
    return NOBODY if os.geteuid() == 0 else []


def toml(sections: Sections) -> str:
    """Returns sections as the text of a configuration file."""
    lines = (
        f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        for section, keys in sections.items()
    )
    return "\n".join(lines)


def merged(*parts: Sections) -> dict[str, dict[str, object]]:
    """Merges several sets of sections into one; the later one wins, key by key."""
    whole: dict[str, dict[str, object]] = {}
    for part in parts:
        for section, keys in part.items():
            whole.setdefault(section, {}).update(keys)
    return whole


def verb(*arguments: str | Path, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Runs one verb to its end."""
    command = [*before, *KSMTUNED, *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)


def one_clear_error(done: subprocess.CompletedProcess[str], exit_code: int = 2) -> str:
    """Returns the sentence of the one error a verb ended with; fails when there was more, or less."""
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines
    assert lines[0].startswith("ksmtuned-py: error: "), done.stderr
    assert all(line.startswith("hint: ") for line in lines[1:]), done.stderr
    assert len(lines) <= 2, done.stderr
    return lines[0].removeprefix("ksmtuned-py: error: ")


class Daemon(Program):
    """Runs `ksmtuned-py run` in a with block, with its configuration and its runtime directory below `directory`."""

    def __init__(
        self,
        directory: Path,
        sections: Sections = QUICK,
        *arguments: str,
        root: Path | None = None,
        environment: Mapping[str, str] | None = None,
        sockets: Sequence[HasDescriptor] = (),
        before: Sequence[str] = (),
    ) -> None:
        """With `before`, a command that becomes the daemon in a place of its own."""
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "config.toml"
        self.runtime = directory / "runtime"
        self.configure(sections)
        where = ["--root", str(root)] if root else []
        command = ["run", "--config", str(self.config), "--runtime-dir", str(self.runtime), *where, *arguments]
        super().__init__([*before, *KSMTUNED, *command], directory, environment, sockets)

    def configure(self, sections: Sections) -> None:
        """Replaces its configuration file; it is heeded at the next start, or reload."""
        self.config.write_text(toml(sections))

    def reload(self, said: str, sections: Sections | None = None) -> None:
        """Sends SIGHUP, behind another configuration perhaps, and waits until it has said this about it."""
        if sections is not None:
            self.configure(sections)
        self.process.send_signal(signal.SIGHUP)
        self.wait_output(said)

    def status(self) -> dict[str, Any]:
        """Returns its status file; empty as long as there is none."""
        try:
            found: dict[str, Any] = json.loads((self.runtime / "status.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def ticks(self) -> int:
        """The number of ticks that it has completed."""
        return int(self.status().get("totals", {}).get("ticks", 0))

    def wait_status(self, look: Callable[[dict[str, Any]], object], what: str, seconds: float = 20.0) -> dict[str, Any]:
        """Waits until its status is like that and returns it; fails at once when it ends."""

        def matching() -> dict[str, Any]:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output()}"
            found = self.status()
            return found if found and look(found) else {}

        return wait_for(matching, seconds, what, said=self.output)

    def wait_ticks(self, more: int = 1, seconds: float = 20.0) -> None:
        """Waits for so many more ticks than it has completed now."""
        wanted = self.ticks() + more
        self.wait_status(lambda _: self.ticks() >= wanted, f"tick {wanted}", seconds)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def scrape(port: int) -> dict[str, float]:
    """Returns every series of /metrics with its value."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {series: float(value) for series, _, value in pairs}


class ServiceManager:
    """What systemd is to a daemon: listens on NOTIFY_SOCKET."""

    def __init__(self, listener: socket.socket, environment: dict[str, str]) -> None:
        self.environment = environment
        self._listener = listener
        self._heard: list[str] = []

    def heard(self) -> list[str]:
        """Returns all messages so far."""
        while True:
            try:
                self._heard.append(self._listener.recv(4096).decode())
            except BlockingIOError:
                return list(self._heard)

    def wait(self, text: str, seconds: float = 20.0) -> list[str]:
        """Waits for a message that begins so, and returns all of them."""
        wait_for(lambda: any(message.startswith(text) for message in self.heard()), seconds, f"{text!r}")
        return self.heard()


@contextmanager
def service_manager(directory: Path, **environment: str) -> Iterator[ServiceManager]:
    """Yields a service manager with its socket in the directory."""
    path = str(directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.setblocking(False)
        yield ServiceManager(listener, {"NOTIFY_SOCKET": path, **environment})
