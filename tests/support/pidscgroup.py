"""A cgroup that may have only so many tasks, as TasksMax= of a unit makes one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.memcgroup import removed
from tests.support.need import need
from tests.support.process import wait_for

# cgroup v1 has a tree for this alone, v2 one for everything.
_ROOTS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))


@contextmanager
def few_tasks(name: str, pid: int, more: int) -> Iterator[None]:
    """Lets the process have so many threads and children more than now; it must have ended at the end of the block."""
    directory = next(root for root in _ROOTS if root.is_dir()) / name
    need(directory.parent.is_dir(), "cgroups")
    directory.mkdir()
    try:
        need((directory / "pids.max").exists(), "a cgroup with the pids controller")
        (directory / "cgroup.procs").write_text(str(pid))
        (directory / "pids.max").write_text(str(int((directory / "pids.current").read_text()) + more))
        yield
    finally:
        wait_for(lambda: removed(directory), 5.0, f"end of all processes in {directory}")
