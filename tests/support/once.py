"""Makes what takes long to make once for all workers of a run (pytest -n 2), which have no fixture in common."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Returns a directory with what `make` puts into it; another worker waits for who makes it, and takes it as it is.

    Nobody may change what is in it. Where making fails, the next one who wants it tries again, and fails for itself.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # each worker has a directory of its own there
    made = base / f"once-{name}"
    with (base / f"once-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            attempt = factory.mktemp(name)
            make(attempt)
            attempt.rename(made)
    return made
