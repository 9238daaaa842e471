"""Looks once at every page of some guests, for an estimate of what merging could save; nothing is changed."""

from collections.abc import Callable
from functools import partial

import numpy as np

from ksmtuned_py.backends.scan.estimate import Sample
from ksmtuned_py.backends.scan.pagemap import PAGE, PRIVATE, Runs, page_count
from ksmtuned_py.backends.scan.pages import ZERO, Prints, chosen, prints
from ksmtuned_py.backends.scan.process import Gone, Process
from ksmtuned_py.backends.scan.table import BLOCK_PAGES, chunks
from ksmtuned_py.backends.scan.target import Target
from ksmtuned_py.door import Door

Tell = Callable[[int, int], None]
"""Pages looked at, pages in all."""


def survey(targets: list[Target], share: float, door: Door, tell: Tell) -> list[Sample]:
    """One sample for each guest that is still there, of that share of all contents; raises NotPermitted, Unreadable."""
    found = {target: _runs(target, door) for target in targets}
    pages, done = sum(page_count(runs) for runs in found.values()), 0
    samples = []
    for target, runs in found.items():
        try:
            with Process(target, door) as process:
                samples.append(_sample(process, runs, share, partial(_tell_all, tell, done, pages)))
        except Gone:
            continue
        done += page_count(runs)
    return samples


def _tell_all(tell: Tell, done: int, pages: int, more: int) -> None:
    tell(done + more, pages)


def _runs(target: Target, door: Door) -> Runs:
    try:
        with Process(target, door) as process:
            parts = [process.runs(start, end, PRIVATE) for start, end in process.ranges()]
            return np.concatenate(parts) if parts else np.empty((0, 2), np.uint64)
    except Gone:
        return np.empty((0, 2), np.uint64)


def _sample(process: Process, runs: Runs, share: float, tell: Callable[[int], None]) -> Sample:
    buffer = memoryview(bytearray(BLOCK_PAGES * PAGE))
    parts: list[Prints] = [np.empty(0, np.uint64)]
    seen = zeros = 0
    for chunk in chunks(runs, BLOCK_PAGES):
        block = buffer[: page_count(chunk) * PAGE]
        if process.read_pages(chunk, block):  # else: unmapped since; too little to matter
            found = prints(block)
            zeros += int(np.count_nonzero(found == ZERO))
            seen += len(found)
            parts.append(chosen(found, share))
        tell(seen)
    target = process.target
    return Sample(
        name=target.name,
        pid=target.pid,
        group=target.group,
        zero_pages=zeros,
        filled_pages=seen - zeros,
        prints=np.concatenate(parts),
    )
