"""Who still maps merged pages: every process of the host is asked, since a child inherits its parent's mappings."""

import os
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ksmtuned_py.backends.scan.mappings import PAGES_NAME, Mapping, parse_maps
from ksmtuned_py.backends.scan.pagemap import COPIED, PAGE, page_numbers, runs
from ksmtuned_py.backends.scan.remap.eligibility import status_refusal
from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError

Counts = NDArray[np.uint32]


def references(door: Door, ends: dict[int, int]) -> tuple[dict[int, Counts], bool]:
    """For each store (inode: pages), how many mappings read each page; and whether every process could be looked at."""
    counts = {inode: np.zeros(end, np.uint32) for inode, end in ends.items()}
    certain = True
    for pid in door.names("proc"):
        try:
            for mapping in merged_mappings(door, pid):
                if mapping.inode in counts:
                    certain &= _count(door, pid, mapping, counts[mapping.inode])
        except (OSError, KsmtunedError):
            certain = False
    return counts, certain


def merged_mappings(door: Door, pid: str) -> list[Mapping]:
    """The mappings of merged pages that a process has; raises OSError and KsmtunedError when it cannot be asked."""
    if not pid.isdecimal():
        return []
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        text = door.read(f"proc/{pid}/maps")
        if PAGES_NAME in text:
            return [mapping for mapping in parse_maps(text) if mapping.name.startswith(f"/memfd:{PAGES_NAME}")]
    return []


def _count(door: Door, pid: str, mapping: Mapping, counts: Counts) -> bool:
    """Counts the pages that were not written to since; False for a process that does not run freely.

    Such a one may still be about to map pages for a worker that was killed.
    """
    try:
        descriptor = os.open(door.path(f"proc/{pid}/pagemap"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            copied = page_numbers(runs(descriptor, mapping.start, mapping.end, COPIED), mapping.start)
        finally:
            os.close(descriptor)
        held = np.ones(mapping.size // PAGE, np.uint32)
        held[copied] = 0
        counts[mapping.offset // PAGE : mapping.offset // PAGE + len(held)] += held
        return not status_refusal(door.read(f"proc/{pid}/status")).startswith("it is stopped")
    except ValueError:  # a mapping beyond the store's end: not one of this worker's making
        return False
