"""The service under a systemd of its own: the unit as it is shipped, on a made-up tree, or on the real KSM."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ksmtuned_py.cli.options import RUNTIME_DIR
from tests.support.container import PYTHON, ROOT, SOURCE, Container, booted
from tests.support.daemon import Sections, toml
from tests.support.ksmlock import RealKsm
from tests.support.process import wait_for
from tests.support.trees import KSM, FakeGuest, KernelVersion, make_fake_tree

UNIT = "/etc/systemd/system/ksmtuned-py.service"
TREE = "/opt/tree"
PROGRAM = f"{PYTHON}/bin/python -m ksmtuned_py"
INSTALLED = f"""
[Service]
WorkingDirectory={SOURCE}
ExecStart=
ExecStart={PROGRAM} run {{where}}
ExecReload=
ExecReload={PROGRAM} check
ExecReload=/bin/kill -HUP $MAINPID
ExecStopPost=
ExecStopPost={PROGRAM} restore {{where}}
ReadWritePaths={{writable}}
"""
"""As if it were installed in /usr/bin, and on that host."""
SECONDS = 30.0


@dataclass
class Service:
    """The service in its container."""

    container: Container
    config: Path
    ksm: Path
    """The knobs it steers, as this process sees them."""
    found: dict[str, str] = field(default_factory=dict)
    """The knobs as it finds them."""

    def make_tree(self, kernel: KernelVersion = "6.18", guests: int = 1) -> None:
        """Another tree for it to steer."""
        tree = self.ksm.parents[3]
        for part in tree.iterdir():
            shutil.rmtree(part)
        crowd = [FakeGuest(pid=1001 + number, name=f"guest-{number}") for number in range(guests)]
        make_fake_tree(tree, kernel=kernel, guests=crowd, run=1, pages_to_scan=123, sleep_millisecs=45)
        self.found = self.knobs()

    def configure(self, sections: Sections) -> None:
        """Replaces its configuration; it is heeded at the next start, or reload."""
        self.config.write_text(toml(sections))

    def systemctl(self, *words: str) -> str:
        """What systemctl says; nothing when all is well."""
        return self.container.run("systemctl", *words, "ksmtuned-py")

    def shows(self, name: str) -> str:
        """What systemd knows of it: MainPID, ActiveState, Result, NRestarts."""
        return self.container.run("systemctl", "show", f"--property={name}", "--value", "ksmtuned-py").strip()

    def start(self) -> None:
        """Ready when it returns."""
        assert self.systemctl("start") == "", self.journal()

    def stop(self) -> None:
        """It has ended well when it returns."""
        self.systemctl("stop")
        assert self.shows("Result") == "success", self.journal()

    def status(self) -> dict[str, Any]:
        """Its status file; empty while there is none."""
        said = self.container.run("cat", f"{RUNTIME_DIR}/status.json")
        found: dict[str, Any] = json.loads(said) if said.startswith("{") else {}
        return found

    def wait_ticks(self, more: int) -> None:
        """Waits for so many more ticks."""
        wanted = self._ticks() + more
        wait_for(lambda: self._ticks() >= wanted, SECONDS, f"tick {wanted}")

    def journal(self) -> str:
        """All it has said since the test began."""
        return self.container.run("journalctl", "--no-pager", "--output=cat", "--unit=ksmtuned-py")

    def knobs(self) -> dict[str, str]:
        """What a daemon may change."""
        names = ("run", "pages_to_scan", "sleep_millisecs", "smart_scan", "advisor_mode", "max_page_sharing")
        return {name: (self.ksm / name).read_text().strip() for name in names if (self.ksm / name).exists()}

    def nobody(self, *command: str) -> list[str]:
        """The command line by which a user without rights does this inside."""
        return self.container.inside("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command)

    def _ticks(self) -> int:
        return int(self.status().get("totals", {}).get("ticks", 0))


@contextmanager
def _service(directory: Path, writable: Path, place: str, where: str) -> Iterator[Service]:
    """The service in a container, not started yet; this directory of ours is there for it to write."""
    (directory / "installed.conf").write_text(INSTALLED.format(where=where, writable=place))
    (directory / "config.toml").touch()
    files = [
        (ROOT / "systemd/ksmtuned-py.service", UNIT),
        (directory / "installed.conf", f"{UNIT}.d/installed.conf"),
        (directory / "config.toml", "/etc/ksmtuned-py/config.toml"),
    ]
    with booted(files, [(writable, place)]) as container:
        yield Service(container, directory / "config.toml", writable)


@pytest.fixture(scope="session")
def on_a_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A container in which the service steers a made-up tree."""
    directory = tmp_path_factory.mktemp("systemd")
    tree = directory / "tree"
    tree.mkdir()
    with _service(directory, tree, TREE, f"--root {TREE} --runtime-dir {RUNTIME_DIR}") as service:
        yield replace(service, ksm=tree / KSM)


@pytest.fixture
def service(on_a_tree: Service) -> Iterator[Service]:
    """The service on a tree with one guest, not started yet; at the end it has left the knobs as they were."""
    on_a_tree.make_tree()
    on_a_tree.configure({"daemon": {"tick_seconds": 0.1, "idle_tick_seconds": 0.1}})
    on_a_tree.container.run("journalctl", "--rotate", "--vacuum-time=1s")
    yield on_a_tree
    on_a_tree.systemctl("stop")
    on_a_tree.systemctl("reset-failed")
    assert on_a_tree.knobs() == on_a_tree.found, on_a_tree.journal()


@pytest.fixture
def real_service(real_ksm: RealKsm, tmp_path: Path) -> Iterator[Service]:
    """The service on the real KSM, not started yet; at the end it has left the knobs as they were."""
    with _service(tmp_path, Path("/", KSM), TREE, "") as service:
        service.container.run("mount", "--bind", TREE, f"/{KSM}")  # over the container's own, which is read-only
        service.found = service.knobs()
        yield service
        service.systemctl("stop")
        assert service.knobs() == service.found, service.journal()
