"""A memory cgroup for one test, which shows what its processes take, whatever else the machine does."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.need import need
from tests.support.process import wait_for

# cgroup v1 has a tree for memory alone, v2 one for everything.
_ROOTS = ((Path("/sys/fs/cgroup/memory"), "memory.usage_in_bytes"), (Path("/sys/fs/cgroup"), "memory.current"))


@dataclass(frozen=True)
class MemoryCgroup:
    """A memory cgroup that is there."""

    directory: Path
    usage: str

    def used_bytes(self) -> int:
        """Returns what its processes have been charged for, in bytes."""
        return int((self.directory / self.usage).read_text())

    def add(self, pid: int) -> None:
        """Charges here what a process takes from now on."""
        (self.directory / "cgroup.procs").write_text(str(pid))

    def limit(self, size_bytes: int) -> None:
        """Limits how much its processes may take in all."""
        file = "memory.limit_in_bytes" if (self.directory / "memory.limit_in_bytes").exists() else "memory.max"
        (self.directory / file).write_text(str(size_bytes))

    def starting(self, *command: str) -> list[str]:
        """Returns the command as one that joins the cgroup before it begins."""
        return ["sh", "-c", f'echo $$ > {self.directory}/cgroup.procs && exec "$@"', "sh", *command]


@contextmanager
def memory_cgroup(name: str) -> Iterator[MemoryCgroup]:
    """Makes a new one; its processes must have ended at the end of the block."""
    root, usage = _ROOTS[0] if _ROOTS[0][0].is_dir() else _ROOTS[1]
    directory = root / name
    directory.mkdir()
    try:
        need((directory / usage).exists(), "a cgroup with the memory controller")
        yield MemoryCgroup(directory, usage)
    finally:
        wait_for(lambda: removed(directory), 2.0, f"end of all processes in {directory}")


def removed(directory: Path) -> bool:
    """Whether a cgroup is gone, once its processes are."""
    with suppress(OSError):
        directory.rmdir()
    return not directory.exists()
