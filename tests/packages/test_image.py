"""The image for nodes: built of a bare Debian 12, and run as a pod of the DaemonSet on the real knobs."""

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psutil
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.packages.conftest import LOCK, build
from tests.repository.test_kubernetes import pod
from tests.support.ksmlock import KSM, RealKsm, locked_ksm, need_real_ksm
from tests.support.need import need
from tests.support.oci import bundle, started, unpack_image
from tests.support.process import Program, wait_for
from tests.support.roots import bare

pytestmark = pytest.mark.packages_long

SECONDS = 30.0
PAGES = 4096
GUEST = f"""
import ctypes, mmap, os, time
memory = mmap.mmap(-1, {PAGES} * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_MERGEABLE)
for page in range({PAGES}):
    memory[page * 4096 : page * 4096 + 8] = b"the same"
os.setuid(65534)
time.sleep(600)
"""
"""16 MiB of equal pages that belong to another user, as a pod's guests do."""
MANAGED = 'policy.name = "fixed"\nfixed.pages_to_scan = 777\n'


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image as it is built, without a registry."""
    need(os.geteuid() == 0 and bool(shutil.which("buildah")), "root, and buildah")
    directory = tmp_path_factory.mktemp("image")
    built = build(directory, "image", "--base", str(bare("bookworm")))
    return next(path for path in built if path.suffix == ".tar")


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A directory with its files in rootfs, and how it wants to be started."""
    directory = tmp_path_factory.mktemp("bundle")
    (directory / "rootfs").mkdir()
    return directory, unpack_image(archive, directory / "rootfs")


class Node:
    """A node with its knobs, on which pods are started and end."""

    def __init__(self, image: tuple[Path, dict[str, Any]], directory: Path, ksm: RealKsm) -> None:
        self.directory, self.config = image
        self.ksm = ksm
        self.logs = directory / "logs"
        self.drop_ins = directory / "config.d"
        self.state = directory / "state"
        for one in (self.logs, self.drop_ins, self.state):
            one.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]

    @contextmanager
    def pod(self, text: str) -> Iterator[Program]:
        """A pod with this ConfigMap, in a with block."""
        (self.drop_ins / "10-node.toml").write_text(f'metrics.address = "127.0.0.1:{self.port}"\n{text}')
        places = {"config": self.drop_ins, "knobs": KSM, "cgroups": Path("/sys/fs/cgroup"), "state": self.state}
        bundle(self.directory, self.config, pod(), places, ["run"])
        with started(self.directory, "pod", self.logs) as program:
            yield program

    def inside(self, *words: str) -> str:
        """What a command says in the pod; it has to end well."""
        command = ["runc", "--root", str(self.logs / "runc"), "exec", "pod", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def merged_bytes(self, pid: int) -> int:
        """What a guest has merged, as a command in the pod says."""
        listed = json.loads(self.inside("ksmtuned-py", "guests", "--json"))
        return next((int(each["merged_bytes"]) for each in listed if each["pid"] == pid), 0)

    def signal(self, name: str) -> None:
        """Sends the pod's process a signal, as kubelet does."""
        subprocess.run(["runc", "--root", self.logs / "runc", "kill", "pod", name], check=True)

    def probe(self) -> int:
        """The code with which it answers a probe; 0 while it does not."""
        client = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            client.request("GET", pod()["containers"][0]["readinessProbe"]["httpGet"]["path"])
            return client.getresponse().status
        except OSError:
            return 0
        finally:
            client.close()

    def wait_ready(self, program: Program) -> None:
        """Waits for the first tick."""
        wait_for(lambda: self.probe() == 200 or program.process.poll() is not None, SECONDS, "readiness")
        assert program.process.poll() is None, program.output()


@pytest.fixture
def node(unpacked: tuple[Path, dict[str, Any]], tmp_path: Path) -> Iterator[Node]:
    need_real_ksm()
    with locked_ksm() as ksm:
        yield Node(unpacked, tmp_path, ksm)


def test_it_begins_as_one_that_watches(node: Node) -> None:
    with node.pod('daemon.mode = "observe"\n') as program:
        node.wait_ready(program)
        assert "only watching" in node.inside("ksmtuned-py", "status")
        assert node.ksm.number("pages_to_scan") != 777


def test_it_has_the_privileges_of_its_manifest_and_no_more(node: Node) -> None:
    with node.pod('daemon.mode = "observe"\n') as program:
        node.wait_ready(program)
        said = dict(
            line.split(":\t")
            for line in node.inside("grep", "-E", "^(Cap|NoNew|Secc)", "/proc/self/status").splitlines()
        )
    assert {said[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {f"{1 << 2 | 1 << 19:016x}"}
    assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")


def test_it_steers_sees_a_guest_of_another_pod_and_puts_the_knobs_back(node: Node, tmp_path: Path) -> None:
    found = node.ksm.number("pages_to_scan")
    with Program(["/usr/bin/python3", "-c", GUEST], tmp_path) as guest, node.pod(MANAGED) as program:
        node.wait_ready(program)
        node.ksm.wait_saved(PAGES * 9 // 10, SECONDS)
        assert node.ksm.number("pages_to_scan") == 777
        wait_for(lambda: node.merged_bytes(guest.pid) > 0, SECONDS, "the guest's account")
        node.signal("TERM")
        assert program.wait(SECONDS) == 0
        assert "failed" not in program.output()
    assert (node.ksm.number("run"), node.ksm.number("pages_to_scan")) == (0, found)


def test_what_a_killed_pod_left_the_next_one_puts_back(node: Node) -> None:
    found = node.ksm.number("pages_to_scan")
    with node.pod(MANAGED) as program:
        node.wait_ready(program)
        wait_for(lambda: node.ksm.number("pages_to_scan") == 777, SECONDS, "knobs of its own")
        node.signal("KILL")
        program.wait(SECONDS)
    assert node.ksm.number("pages_to_scan") == 777
    with node.pod(MANAGED) as program:
        node.wait_ready(program)
        node.signal("TERM")
        assert program.wait(SECONDS) == 0
    assert node.ksm.number("pages_to_scan") == found


def test_a_second_one_on_the_node_is_refused(node: Node, tmp_path: Path) -> None:
    with node.pod('daemon.mode = "observe"\n') as program:
        node.wait_ready(program)
        first = json.loads((node.state / "status.json").read_text())["pid"]
        logs = tmp_path / "second"
        logs.mkdir()
        with started(node.directory, "second", logs) as second:
            assert second.wait(SECONDS) != 0
            assert f"PID {first}" in second.output()
        assert psutil.pid_exists(first)


def test_a_bad_configmap_ends_it_with_every_mistake(node: Node) -> None:
    before = node.ksm.number("pages_to_scan")
    with node.pod('policy.name = "fixt"\nfixed.pages_to_scan = 0\n') as program:
        assert program.wait(SECONDS) == 2
    for line, key in ((2, "policy.name"), (3, "fixed.pages_to_scan")):
        assert f"/etc/ksmtuned-py/config.d/10-node.toml:{line}: {key}" in program.output()
    assert node.ksm.number("pages_to_scan") == before


def test_nobody_but_root_can_change_what_it_runs(unpacked: tuple[Path, dict[str, Any]]) -> None:
    root = unpacked[0] / "rootfs"
    ours = [*(root / "usr/lib/ksmtuned-py").rglob("*"), *(root / "etc/ksmtuned-py").rglob("*")]
    seen = [(path, path.lstat()) for path in ours if not path.is_symlink()]
    assert [path for path, stat in seen if stat.st_uid != 0 or stat.st_mode & 0o022] == []
    assert [path for path in ours if path.name == "pip"] == []


def test_its_list_has_all_that_is_in_it(archive: Path, unpacked: tuple[Path, dict[str, Any]]) -> None:
    text = next(archive.parent.glob("*.cdx.json")).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(text) is None
    listed = {unquote(each["purl"]) for each in json.loads(text)["components"]}
    status = (unpacked[0] / "rootfs/var/lib/dpkg/status").read_text()
    names = {line.partition(": ")[2] for line in status.splitlines() if line.startswith("Package: ")}
    assert {url.partition("@")[0].removeprefix("pkg:deb/debian/") for url in listed if "deb/" in url} == names
    locked = set(re.findall(r"(?m)^([\w.-]+)==([\w.]+)", LOCK.read_text()))
    assert {f"pkg:pypi/{name}@{version}" for name, version in locked} <= listed


def test_two_builds_are_equal(archive: Path, tmp_path: Path) -> None:
    again = build(tmp_path, "image", "--base", str(bare("bookworm")))
    assert {path.name: path.read_bytes() for path in again} == {
        path.name: path.read_bytes() for path in archive.parent.iterdir()
    }
