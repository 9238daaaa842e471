"""What the kernel tells of a process's memory."""

from pathlib import Path

from ksmtuned_py.units import KIB


def huge_bytes(pid: int) -> int:
    """How much of it is in huge pages."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith("AnonHugePages"))


def is_mergeable(pid: int) -> bool:
    """Whether any of it may merge."""
    flags = (line.split() for line in Path(f"/proc/{pid}/smaps").read_text().splitlines() if "VmFlags" in line)
    return any("mg" in words for words in flags)
