"""Stalls on memory on demand: a process reads a file round and round in a cgroup too small for it.

Only that process stalls, but the kernel counts it in /proc/pressure/memory.
"""

import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.guests import ROOT
from ksmtuned_py.units import MIB

GROUP = "bench-thrash"
LIMIT_BYTES = 24 * MIB
FILE_BYTES = 256 * MIB
CGROUPS = ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max"))
"""Version 1 where its memory controller is mounted, or else version 2."""


@contextmanager
def thrashing() -> Iterator[None]:
    """Stalls for the length of a with block; raises OSError where there is no memory controller or no room on disk."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, _group() as group:
        file = Path(directory, "file")
        file.write_bytes(os.urandom(FILE_BYTES))
        command = [sys.executable, "-m", "bench.thrash", str(file), str(group / "cgroup.procs")]
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            yield
        finally:
            process.kill()
            process.wait()


@contextmanager
def _group() -> Iterator[Path]:
    root, limit = next((root, limit) for root, limit in CGROUPS if root.is_dir())
    with suppress(OSError):  # version 1 has no such file
        Path(root, "cgroup.subtree_control").write_text("+memory")
    group = root / GROUP
    group.mkdir(exist_ok=True)
    try:
        (group / limit).write_text(str(LIMIT_BYTES))
        yield group
    finally:
        group.rmdir()


def main() -> None:
    """Runs the process itself (`FILE PROCS`); its page cache has to be its own, so it drops the cached file first."""
    file, procs = sys.argv[1:]
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    Path(procs).write_text(str(os.getpid()))
    with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as memory:
        while True:
            for page in range(0, len(memory), mmap.PAGESIZE):
                _ = memory[page]


if __name__ == "__main__":
    main()
