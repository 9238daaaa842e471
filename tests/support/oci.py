"""An image as a node would run it: unpacked, and started by a real runtime with the privileges of a pod's container."""

import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tests.support.need import need
from tests.support.process import Program

SECCOMP = Path("/usr/share/containers/seccomp.json")
"""What a runtime takes for RuntimeDefault."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
END_SECONDS = 60.0


def unpack_image(archive: Path, root: Path) -> dict[str, Any]:
    """Unpacks the layers of an OCI archive, and returns what it says of how to start it."""
    with tarfile.open(archive) as file:

        def blob(digest: str) -> IO[bytes]:
            found = file.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert found is not None
            return found

        index = file.extractfile("index.json")
        assert index is not None
        manifest = json.load(blob(json.load(index)["manifests"][0]["digest"]))
        for layer in manifest["layers"]:
            # Files that a layer takes away are logs and caches, so here they stay.
            command = ["tar", "--extract", "--gzip", "--exclude=.wh.*", f"--directory={root}"]
            subprocess.run(command, input=blob(layer["digest"]).read(), check=True)
        config: dict[str, Any] = json.load(blob(manifest["config"]["digest"]))["config"]
        return config


def seccomp(capabilities: Sequence[str]) -> dict[str, Any]:
    """The default filter as runtimes give it to a container with these capabilities on this processor."""
    default = json.loads(SECCOMP.read_text())

    def holds(rule: Mapping[str, Any]) -> bool:
        wanted, refused = rule.get("includes") or {}, rule.get("excludes") or {}
        architectures = wanted.get("arches") or [ARCHITECTURES[platform.machine()]]
        return (
            set(wanted.get("caps") or ()) <= set(capabilities)
            and set(refused.get("caps") or ()).isdisjoint(capabilities)
            and ARCHITECTURES[platform.machine()] in architectures
        )

    keys = ("names", "action", "errnoRet", "args")
    return {
        "defaultAction": default["defaultAction"],
        "defaultErrnoRet": default["defaultErrnoRet"],
        "architectures": [f"SCMP_ARCH_{platform.machine().upper()}"],
        "syscalls": [{key: rule[key] for key in keys if rule.get(key)} for rule in default["syscalls"] if holds(rule)],
    }


def bundle(
    directory: Path, config: Mapping[str, Any], pod: Mapping[str, Any], places: Mapping[str, Path], words: Sequence[str]
) -> None:
    """Writes what the runtime is to do, from a pod's manifest: `places` has where its volumes are on this machine.

    It has this machine's network, for whoever probes it.
    """
    path = directory / "config.json"
    path.unlink(missing_ok=True)
    subprocess.run(["runc", "spec", "--bundle", directory], check=True)
    spec = json.loads(path.read_text())
    container = pod["containers"][0]
    context = container["securityContext"]
    capabilities = [f"CAP_{name}" for name in context["capabilities"]["add"]]
    spec["process"] |= {
        "terminal": False,
        "user": {"uid": context["runAsUser"], "gid": context["runAsGroup"]},
        "args": [*config["Entrypoint"], *words],
        "env": config["Env"],
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        "noNewPrivileges": not context["allowPrivilegeEscalation"],
    }
    spec["root"]["readonly"] = context["readOnlyRootFilesystem"]
    own = [kind for kind, shared in (("pid", pod["hostPID"]), ("ipc", False), ("cgroup", False)) if not shared]
    spec["linux"]["namespaces"] = [{"type": kind} for kind in (*own, "uts", "mount")]
    spec["linux"]["seccomp"] = seccomp(capabilities)
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    spec["mounts"] = [mount for mount in spec["mounts"] if mount["destination"] not in mounts]
    for place, mount in mounts.items():
        mode = "ro" if mount.get("readOnly") else "rw"
        source = str(places[mount["name"]])
        spec["mounts"].append({"destination": place, "type": "bind", "source": source, "options": ["rbind", mode]})
    path.write_text(json.dumps(spec))


@contextmanager
def started(directory: Path, name: str, logs: Path) -> Iterator[Program]:
    """Runs the bundle in a with block, and leaves nothing of it."""
    need(shutil.which("runc") is not None, "runc, to start an image")
    runtime = ["runc", "--root", str(logs / "runc")]
    with Program([*runtime, "run", "--bundle", str(directory), name], logs) as program:
        try:
            yield program
        finally:
            subprocess.run([*runtime, "kill", name, "KILL"], check=False, capture_output=True)
            program.process.wait(END_SECONDS)
            subprocess.run([*runtime, "delete", "--force", name], check=False, capture_output=True)
