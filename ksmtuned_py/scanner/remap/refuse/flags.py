"""Reads the flags and NUMA policies of a guest's mappings in small steps.

For each mapping the kernel walks through its page tables. Meanwhile the guest can map nothing, and we hear nothing. So
one read takes in one mapping, and a guest is refused where that alone would take long.
"""

import re
import time
from collections.abc import Callable, Generator, Iterator

from ksmtuned_py.door import Door
from ksmtuned_py.guests.mappings import Mapping
from ksmtuned_py.scanner.pagemap import MAPPED_SMALL, PAGE, page_count
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.refuse.eligibility import Eligible, judged, of_size
from ksmtuned_py.scanner.remap.refuse.numa import policies
from ksmtuned_py.scanner.table import SLAB_BYTES

_MOST_WALKED = 8 << 20
"""Small pages of one mapping through which the kernel walks in half a second: 32 GiB, at 55 ns a page."""
_RUN_PAGES = 16
"""What a run of pages costs beside its pages, counted in pages: it may have a page table of its own."""
_SMAPS_BYTES, _NUMA_BYTES = 512, 32
"""Less than a mapping's lines have in each file, so that one read takes in one mapping, or two small ones."""
_KEPT = re.compile(rb"^(?:[0-9a-f]|VmFlags:|ProtectionKey:).*\n", re.MULTILINE)
_STEP_SECONDS, _STEP_PAGES = 0.005, 2000
"""How long a step takes, and how many pages could be read meanwhile."""
_CHUNK_BYTES = 1 << 16


def eligible_now(
    door: Door, process: Process, least_bytes: int
) -> Generator[int, None, tuple[list[Eligible], str | None]]:
    """Returns the mappings that may be remapped, and why one is not; yields the work of each step, in pages."""
    yield from refuse_long_walks(process, process.mappings())
    found, reasons = list[Eligible](), list[str | None]()
    numa: dict[int, str] | None = None
    if door.exists("proc/self/numa_maps"):
        lines: list[str] = []
        yield from _slowly(process, "numa_maps", _NUMA_BYTES, b"\n", lines.append)
        numa = policies("".join(lines))

    def judge(text: str) -> None:
        some, reason = judged(text, numa, least_bytes)
        found.extend(some)
        reasons.append(reason)

    yield from _slowly(process, "smaps", _SMAPS_BYTES, b"\nVmFlags:", judge)
    return of_size(found, least_bytes), next(filter(None, reasons), None)


def refuse_long_walks(process: Process, mappings: list[Mapping]) -> Iterator[int]:
    """Raises Refused when the kernel would walk through a mapping for long; yields the work of each step, in pages."""
    for mapping in mappings:
        walked = 0
        for start in range(mapping.start, mapping.end, SLAB_BYTES) if mapping.size > _MOST_WALKED * PAGE else ():
            runs = process.runs(start, min(mapping.end, start + SLAB_BYTES), MAPPED_SMALL)
            walked += page_count(runs) + _RUN_PAGES * len(runs)
            if walked > _MOST_WALKED:
                raise Refused("one of its mappings has so many small pages that reading its flags would hold it up")
            yield 1


def _slowly(process: Process, name: str, size: int, last: bytes, take: Callable[[str], object]) -> Iterator[int]:
    """Takes in the lines of a file that tell of places, flags and policies; `last` begins a mapping's last line."""
    text = bytearray()
    due_seconds = time.monotonic() + _STEP_SECONDS
    for piece in process.pieces(name, size):
        text += piece
        if len(text) > _CHUNK_BYTES:
            end = text.find(b"\n", text.rfind(last) + len(last) - 1) + 1
            take(_kept(text[:end]))
            del text[:end]
        if time.monotonic() >= due_seconds:
            yield _STEP_PAGES
            due_seconds = time.monotonic() + _STEP_SECONDS
    take(_kept(text))


def _kept(text: bytearray) -> str:
    return b"".join(_KEPT.findall(text)).decode("utf-8", "replace")
