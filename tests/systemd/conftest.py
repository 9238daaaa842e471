"""Gives the tests the service under a systemd of its own, on a made-up tree or on the real KSM.

The unit is as it is shipped.
"""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ksmtuned_py.cli.options import RUNTIME_DIR
from tests.support.container import PYTHON, ROOT, SOURCE, booted
from tests.support.daemon import Sections, toml
from tests.support.trees import KSM, FakeGuest, KernelVersion, make_fake_tree
from tests.support.unit import Unit

UNITS = ROOT / "systemd"
UNIT = "/etc/systemd/system/ksmtuned-py.service"
TREE = "/opt/tree"
PROGRAM = f"{PYTHON}/bin/python -m ksmtuned_py"
INSTALLED = f"""
[Service]
Environment=PYTHONPATH={SOURCE}
ExecStart=
ExecStart={PROGRAM} run {{where}}
ExecReload=
ExecReload={PROGRAM} reload
ExecStopPost=
ExecStopPost={PROGRAM} restore {{where}}
ReadWritePaths={{writable}}
RestartSec=0.5
"""
"""A drop-in with which the service runs as if installed in /usr/bin, and on that host. Nobody waits for a restart."""


@dataclass
class Service(Unit):
    """The service of this source in its container."""

    config: Path = Path()

    def make_tree(self, kernel: KernelVersion = "6.18", guests: int = 1) -> None:
        """Make another tree for the service to steer."""
        tree = self.ksm.parents[3]
        for part in tree.iterdir():
            shutil.rmtree(part)
        crowd = [FakeGuest(pid=1001 + number, name=f"guest-{number}") for number in range(guests)]
        make_fake_tree(tree, kernel=kernel, guests=crowd, run=1, pages_to_scan=123, sleep_millisecs=45)
        self.found = self.knobs()

    def configure(self, sections: Sections) -> None:
        """Replace the configuration, which takes effect at the next start or reload."""
        self.config.write_text(toml(sections))

    def nobody(self, *command: str) -> list[str]:
        """The command line with which a user without rights runs a command in the container."""
        return self.container.inside("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command)

    def verb(self, *words: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        """How a verb of ours ended that a user ran in the container."""
        rights = [] if user == "root" else ["setpriv", f"--reuid={user}", "--regid=65534", "--clear-groups"]
        return self.container.ended(*rights, *PROGRAM.split(), *words)


@contextmanager
def _service(
    directory: Path, writable: Path, place: str, where: str, more: Sequence[tuple[Path, str]] = ()
) -> Iterator[Service]:
    """The service in a container, not started yet, with `writable` as a directory that it may write.

    `more` are files of ours and their places.
    """
    (directory / "installed.conf").write_text(INSTALLED.format(where=where, writable=place))
    (directory / "config.toml").touch()
    files = [
        (UNITS / "ksmtuned-py.service", UNIT),
        (UNITS / "ksmtuned-py.socket", "/etc/systemd/system/ksmtuned-py.socket"),
        (directory / "installed.conf", f"{UNIT}.d/installed.conf"),
        (directory / "config.toml", "/etc/ksmtuned-py/config.toml"),
        *more,
    ]
    with booted(files, [(writable, place)]) as container:
        yield Service(container, writable, config=directory / "config.toml")


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
    """The service on a tree with one guest, not started yet. At the end the knobs must be as before."""
    on_a_tree.make_tree()
    on_a_tree.configure({"daemon": {"tick_seconds": 0.1, "idle_tick_seconds": 0.1}})
    on_a_tree.container.run("journalctl", "--rotate", "--vacuum-time=1s")
    yield on_a_tree
    on_a_tree.systemctl("stop")
    on_a_tree.systemctl("reset-failed")
    assert on_a_tree.knobs() == on_a_tree.found, on_a_tree.journal()


@pytest.fixture(scope="session")
def on_made_up_knobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A container in which a user without rights is to steer made-up knobs, in the place of the kernel's."""
    directory = tmp_path_factory.mktemp("unprivileged")
    tree = directory / "tree"
    tree.mkdir()
    more = [
        (UNITS / "unprivileged.conf", f"{UNIT}.d/unprivileged.conf"),
        (UNITS / "unprivileged.sysusers", "/etc/sysusers.d/ksmtuned-py.conf"),
        (UNITS / "unprivileged.tmpfiles", "/etc/tmpfiles.d/ksmtuned-py.conf"),
    ]
    with _service(directory, tree, TREE, "", more) as service:
        yield replace(service, ksm=tree / KSM)


@pytest.fixture
def unprivileged(on_made_up_knobs: Service) -> Iterator[Service]:
    """The service of a user without rights, not started yet. At the end the knobs must be as before."""
    one = on_made_up_knobs
    one.make_tree(guests=0)
    one.configure({"daemon": {"tick_seconds": 0.1, "idle_tick_seconds": 0.1}})
    for command in (
        "umount /proc/sys/kernel/random/boot_id",  # the container's own, which the service does not see
        f"mount --bind {TREE}/{KSM} /{KSM}",
        "systemd-sysusers",
        "systemd-tmpfiles --create /etc/tmpfiles.d/ksmtuned-py.conf",
        "journalctl --rotate --vacuum-time=1s",
    ):
        one.container.run(*command.split())
    yield one
    one.systemctl("stop")
    one.systemctl("reset-failed")
    one.container.run("umount", f"/{KSM}")
    assert one.knobs() == one.found, one.journal()
