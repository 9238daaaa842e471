"""The doctor finds in each real guest its cause alone."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ksmtuned_py.guests.smaps import parse_smaps
from ksmtuned_py.units import MIB
from tests.support.daemon import verb
from tests.support.need import need
from tests.support.process import wait_for
from tests.support.qemu import QEMU

OPTIONS = ["-m", "256", "-accel", "tcg", "-display", "none", "-nodefaults", "-no-user-config", "-S"]
MEMFD = "memory-backend-memfd,id=ram,size=256M,share=on"
GUESTS = {
    "web": ["-machine", "pc"],
    "db": ["-machine", "pc,mem-merge=off"],
    "files": ["-object", MEMFD, "-machine", "pc,memory-backend=ram"],
}


@contextmanager
def running() -> Iterator[dict[str, int]]:
    """The PIDs of three guests that have their memory."""
    with ExitStack() as stack:
        found = {}
        for name, more in GUESTS.items():
            process = stack.enter_context(subprocess.Popen([QEMU, "-name", f"guest={name}", *OPTIONS, *more]))
            stack.callback(process.kill)
            found[name] = process.pid
        wait_for(lambda: all(map(_has_memory, found.values())), 20, "the guests' memory", every_seconds=0.1)
        yield found


def _has_memory(pid: int) -> bool:
    mappings = parse_smaps(Path(f"/proc/{pid}/smaps").read_text())
    return any(mapping.size_bytes == 256 * MIB for mapping in mappings)


def test_each_guest_is_told_its_cause_alone(tmp_path: Path) -> None:
    need(shutil.which(QEMU) is not None, QEMU)
    with running() as pids:
        found = {name: findings(pid, tmp_path) for name, pid in pids.items()}
    assert "not_mergeable" not in found["web"]
    assert found["db"].get("nosharepages") == "note"
    assert found["files"].get("shared") == "finding"
    assert not any(code.endswith("not_mergeable") for codes in found.values() for code in codes)


def findings(pid: int, directory: Path) -> dict[str, str]:
    """The codes found in one guest, with their severities."""
    done = verb("doctor", str(pid), "--json", "--runtime-dir", directory / "none")
    return {each["code"]: each["severity"] for each in json.loads(done.stdout) if each["guest"]}
