"""Gives the tests on the real kernel processes with memory to merge, and the daemon as a process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ksmtuned_py.cli.workload import Mix, Workload, workloads
from ksmtuned_py.units import MIB
from tests.support.daemon import Daemon, Sections
from tests.support.ksmlock import RealKsm

MIXES = [Mix(equal_bytes=24 * MIB, zero_bytes=8 * MIB, unique_bytes=8 * MIB)] * 3
Start = Callable[..., Daemon]


@pytest.fixture
def guests(real_ksm: RealKsm) -> Iterator[list[Workload]]:
    """Three processes with memory to merge, which ksmd has not scanned yet."""
    with workloads(MIXES) as guests:
        yield guests


@pytest.fixture
def start(tmp_path: Path, real_ksm: RealKsm) -> Iterator[Start]:
    """Starts a daemon on the real machine, which is up when the call returns, and gone after the test."""
    with ExitStack() as stack:

        def start(sections: Sections, *arguments: str, name: str = "daemon", root: Path | None = None) -> Daemon:
            daemon = stack.enter_context(Daemon(tmp_path / name, sections, *arguments, root=root))
            daemon.wait_status(lambda status: status["pid"] == daemon.pid, "first tick")
            return daemon

        yield start
