"""The manifests for Kubernetes: what kustomize makes of them is valid, and says what the daemon needs and no more."""

import json
import shutil
import subprocess
import sys
import tempfile
from copy import deepcopy
from functools import cache, partial
from itertools import repeat
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from ksmtuned_py.configfile.load import load
from ksmtuned_py.guests.pods import LOGS
from ksmtuned_py.publish.site import Sources
from tests.publish.test_web import get, registry, serving
from tests.support.debian import unpacked_of

ROOT = Path(__file__).parent.parent.parent
MANIFESTS = ROOT / "packaging/kubernetes"
POD_MONITOR = ROOT / "tests/data/kubernetes/podmonitor.json"
OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
"""The first Kubernetes whose pods have a profile of AppArmor, and the newest of which there is a schema."""

Manifest = dict[str, Any]


@cache
def with_tenants() -> Manifest:
    """The DaemonSet of a kustomization with the component for tenants."""
    with tempfile.TemporaryDirectory() as scratch:
        place = shutil.copytree(MANIFESTS, Path(scratch, "kubernetes")) / "both"
        place.mkdir()
        (place / "kustomization.yaml").write_text("resources: [../base]\ncomponents: [../tenants]\n")
        return next(one for one in built(str(place)) if one["kind"] == "DaemonSet")


@cache
def built(place: str) -> tuple[Manifest, ...]:
    """What kustomize makes of a directory."""
    kustomize = unpacked_of("trixie", "kustomize") / "usr/bin/kustomize"
    done = subprocess.run([kustomize, "build", MANIFESTS / place], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return tuple(yaml.safe_load_all(done.stdout))


def manifest(kind: str, place: str = "base") -> Manifest:
    return next(one for one in built(place) if one["kind"] == kind)


def pod() -> Manifest:
    found: Manifest = manifest("DaemonSet")["spec"]["template"]["spec"]
    return found


def container() -> Manifest:
    found: Manifest = pod()["containers"][0]
    return found


def validate(one: Manifest, version: str) -> None:
    """Raises an error for whatever the schema does not know."""
    if one["kind"] == "PodMonitor":
        jsonschema.validate(one, json.loads(POD_MONITOR.read_text()))
    else:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_they_are_valid(version: str) -> None:
    for one in built("monitoring"):  # the base is in it
        validate(one, version)


def test_the_kinds() -> None:
    assert [one["kind"] for one in built("base")] == ["Namespace", "ServiceAccount", "ConfigMap", "DaemonSet"]
    assert sorted(one["kind"] for one in built("monitoring")) == sorted(
        ["Namespace", "ServiceAccount", "ConfigMap", "DaemonSet", "PodMonitor"]
    )


@pytest.mark.parametrize(
    ("kind", "path", "key"),
    [
        ("DaemonSet", ("spec", "template", "spec"), "hostPid"),
        ("DaemonSet", ("spec", "template", "spec", "containers", 0, "securityContext"), "readOnly"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0), "ports"),
    ],
)
def test_a_slip_of_the_pen_is_not(kind: str, path: tuple[str | int, ...], key: str) -> None:
    one = json.loads(json.dumps(manifest(kind, "monitoring")))
    place = one
    for step in path:
        place = place[step]
    place[key] = True
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(one, NEWEST)


def test_the_privileges_are_those_it_needs() -> None:
    context = container()["securityContext"]
    assert context["privileged"] is False
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["DAC_READ_SEARCH", "SYS_PTRACE"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {name for name in ("hostPID", "hostIPC", "hostNetwork") if pod().get(name)} == {"hostPID"}
    assert pod()["automountServiceAccountToken"] is False
    assert manifest("ServiceAccount")["automountServiceAccountToken"] is False


def test_it_writes_to_the_knobs_and_to_its_own_directory_alone() -> None:
    of_host = {one["name"]: one["hostPath"]["path"] for one in pod()["volumes"] if "hostPath" in one}
    mounts = container()["volumeMounts"]
    written = {of_host[one["name"]] for one in mounts if not one.get("readOnly")}
    assert written == {"/sys/kernel/mm/ksm", "/run/ksmtuned-py"}
    assert {one["mountPath"] for one in mounts if one["name"] in of_host} == set(of_host.values())  # no other names


def test_keeping_tenants_apart_takes_one_more_capability_and_names() -> None:
    for version in (OLDEST, NEWEST):
        validate(with_tenants(), version)
    ours, theirs = (deepcopy(each["spec"]["template"]["spec"]) for each in (manifest("DaemonSet"), with_tenants()))
    (one,), (other,) = ours["containers"], theirs["containers"]
    before, after = (set(each["securityContext"]["capabilities"]["add"]) for each in (one, other))
    assert after - before == {"DAC_OVERRIDE"}
    more = [mount for mount in other["volumeMounts"] if mount not in one["volumeMounts"]]
    assert more == [{"name": "pods", "mountPath": f"/{LOGS}", "readOnly": True}]
    for each in (one, other):
        each["securityContext"]["capabilities"], each["volumeMounts"] = {}, []
    assert (one, len(theirs["volumes"])) == (other, len(ours["volumes"]) + 1)


def configured(directory: Path) -> Path:
    """The ConfigMap as kubelet puts it there: links through a link to a directory with a time in its name."""
    behind = directory / "..2026_01_01_00_00_00.1"
    behind.mkdir()
    (directory / "..data").symlink_to(behind.name)
    for name, text in manifest("ConfigMap")["data"].items():
        (behind / name).write_text(text)
        (directory / name).symlink_to(f"..data/{name}")
    return directory


def test_its_configuration_begins_as_one_that_watches(tmp_path: Path) -> None:
    config = load(ROOT / "config/config.toml", configured(tmp_path)).config
    assert config.daemon.mode == "observe"
    _, port = config.metrics.address.rsplit(":", 1)
    assert [one["containerPort"] for one in container()["ports"] if one["name"] == "metrics"] == [int(port)]


def test_a_changed_configuration_is_rolled_out() -> None:
    names = [one["configMap"]["name"] for one in pod()["volumes"] if "configMap" in one]
    assert names == [manifest("ConfigMap")["metadata"]["name"]]
    assert names != ["ksmtuned-py"]  # so it ends in the hash of its content


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_a_probe_asks_for_the_last_tick(probe: str) -> None:
    asked = container()[probe]["httpGet"]
    assert asked["port"] == "metrics"
    for sentence, status in (("no tick yet", 503), ("the tick is 20 s late", 503), (None, 200)):
        told = partial(next, repeat(sentence))
        with serving(sources=Sources(registry=registry(), trouble=told)) as web:
            assert get(web, asked["path"])[0].status == status


def test_prometheus_finds_the_pods() -> None:
    monitor = manifest("PodMonitor", "monitoring")["spec"]
    labels = manifest("DaemonSet")["spec"]["template"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert [one["port"] for one in monitor["podMetricsEndpoints"]] == ["metrics"]


def test_the_files_are_tidy() -> None:
    files = [*sorted(MANIFESTS.rglob("*.yaml")), *sorted((ROOT / "packaging/ansible").rglob("*.yml"))]
    done = subprocess.run(
        [sys.executable, "-m", "yamllint", "--strict", "--config-file", ROOT / "packaging/yamllint.yaml", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert files
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
