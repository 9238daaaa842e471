"""Makes what takes long to make once, for all workers and for a second test run beside."""

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(wanted: Path, make: Callable[[Path], object]) -> Path:
    """Returns a directory that `make` makes the first time: whole or not at all. Others who want it wait meanwhile.

    Nobody may change what is in it. Where making fails, the next one who wants it tries again, and fails for itself.
    """
    if wanted.exists():
        return wanted
    wanted.parent.mkdir(parents=True, exist_ok=True)
    with wanted.with_name(f"{wanted.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wanted.exists():
            with tempfile.TemporaryDirectory(dir=wanted.parent) as scratch:
                make(made := Path(scratch, "made"))
                made.rename(wanted)
    return wanted


def place_of_run(factory: pytest.TempPathFactory, name: str) -> Path:
    """Returns a place that is the same for all workers of this test run."""
    base = factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
