"""Managers, which steer ksmd in the arena: each has a name, and a way to be put to work."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, get_args

import psutil

from bench.stage import FULL_SPEED
from ksmtuned_py.config import Adaptive, Policy
from tests.support.debian import unpacked
from tests.support.ksmlock import RealKsm
from tests.support.process import Program, end_all, wait_for

START_SECONDS = 30.0
STOP_SECONDS = 30.0


class Manager(Protocol):
    """Somebody who steers ksmd."""

    def at_work(self, ksm: RealKsm, scratch: Path) -> AbstractContextManager[psutil.Process | None]:
        """Works from start to stop; yields its process if it has one. It finds the kernel's default knobs."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Values that are written once, in this order, without a process; the kernel does the rest."""

    knobs: Mapping[str, object]

    @contextmanager
    def at_work(self, ksm: RealKsm, scratch: Path) -> Iterator[None]:  # noqa: ARG002 - needs no files
        """Writes the values, and leaves them."""
        for name, value in self.knobs.items():
            ksm.write(name, value)
        yield


@dataclass(frozen=True, slots=True)
class Ours:
    """Our daemon as a process of its own, with this configuration."""

    toml: str

    @contextmanager
    def at_work(self, ksm: RealKsm, scratch: Path) -> Iterator[psutil.Process]:  # noqa: ARG002 - writes by itself
        """Works from its first tick to the end that SIGTERM brings."""
        config = scratch / "config.toml"
        config.write_text(self.toml)
        options = ["--config", str(config), "--runtime-dir", str(scratch / "run")]
        with Program([sys.executable, "-m", "ksmtuned_py", "run", *options], scratch) as daemon:
            _wait_first_tick(daemon, scratch / "run" / "status.json")
            yield psutil.Process(daemon.pid)
            daemon.end(seconds=STOP_SECONDS)


@dataclass(frozen=True, slots=True)
class Ksmtuned:
    """Debian's script from its package, run as its two systemd units do; the package is not installed.

    Its settings are shell variables that its configuration file would set. All lines of that file are comments, so the
    environment says the same.
    """

    interval_seconds: int = 60

    @contextmanager
    def at_work(self, ksm: RealKsm, scratch: Path) -> Iterator[psutil.Process]:
        """Works from its start to the kill of all its processes: it traps no signal, so its unit does no more."""
        script = unpacked("ksmtuned") / "usr/sbin/ksmtuned"
        pid_file = scratch / "ksmtune.pid"
        settings = {"PIDFILE": str(pid_file), "KSM_MONITOR_INTERVAL": str(self.interval_seconds)}
        ksm.write("run", 1)  # ksm.service, which ksmtuned.service requires
        subprocess.run(
            ["bash", script],
            env={**os.environ, **settings},
            stdout=subprocess.DEVNULL,
            check=True,
            start_new_session=True,
        )
        loop = psutil.Process(int(wait_for(pid_file.read_text, START_SECONDS, "ksmtuned's PID file")))
        try:
            yield loop
        finally:
            end_all([loop, *loop.children(recursive=True)])


def _wait_first_tick(daemon: Program, status: Path) -> None:
    """Waits for the first tick; raises AssertionError with all the daemon said when it ends before, or stays silent."""
    wait_for(lambda: status.exists() or daemon.process.poll() is not None, START_SECONDS, "first tick")
    assert status.exists(), daemon.output()


def _ours() -> dict[str, Manager]:
    rows: dict[str, Manager] = {}
    profiles = get_args(Adaptive.model_fields["profile"].annotation)
    for policy in get_args(Policy.model_fields["name"].annotation):
        for profile in profiles if policy == "adaptive" else ("",):
            rows["-".join(filter(None, ("ours", policy, profile)))] = Ours(_toml(policy, profile))
    return rows


def _toml(policy: str, profile: str) -> str:
    lines = [f'policy.name = "{policy}"', 'metrics.address = ""']
    return "\n".join(lines + ([f'adaptive.profile = "{profile}"'] if profile else [])) + "\n"


ADVISOR = {"advisor_mode": "scan-time", "run": 1}
MANAGERS: dict[str, Manager] = {
    "nothing": Settings({}),
    "ksmd-defaults": Settings({"run": 1}),
    "ksmd-full-speed": Settings(FULL_SPEED),
    "advisor": Settings(ADVISOR),
    "advisor-20s": Settings({"advisor_target_scan_time": 20, **ADVISOR}),
    "ksmtuned": Ksmtuned(),
    "ksmtuned-10s": Ksmtuned(10),
    **_ours(),
}


def manager(name: str) -> Manager:
    """Returns the manager of that name, or our daemon with a .toml file of that name. Raises KeyError, OSError."""
    return Ours(Path(name).read_text()) if name.endswith(".toml") else MANAGERS[name]
