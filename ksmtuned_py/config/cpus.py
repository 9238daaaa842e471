"""Lists of CPUs as the kernel writes them: 0-3,8. Pure."""

import re
from collections.abc import Iterable

CPUS_MAX = 8192
"""The most that any kernel is built for (NR_CPUS)."""
_PART = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


def cpus_of(text: str) -> frozenset[int]:
    """Returns the numbers of the CPUs in a list; raises ValueError for any other text."""
    cpus: list[int] = []
    for part in text.split(","):
        cpus += _range(part.strip(), text)
        if len(cpus) > CPUS_MAX:  # a trace has such a text, too, and may come from anywhere
            raise ValueError(f"{text[:60]!r} names more than {CPUS_MAX} CPUs")
    return frozenset(cpus)


def cpu_list(cpus: Iterable[int]) -> str:
    """Returns these CPUs as the kernel writes them."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _range(part: str, text: str) -> range:
    found = _PART.fullmatch(part)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not first <= last < CPUS_MAX:
        raise ValueError(f"{text[:60]!r} is no list of CPUs (0-3,8)")
    return range(first, last + 1)
