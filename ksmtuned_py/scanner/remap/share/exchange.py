"""Exchanges pages of a guest that stands still for equal ones of the store, after comparing them byte by byte."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from ksmtuned_py.scanner.pagemap import PRIVATE, page_count
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.foothold.install import LOCKS, locked
from ksmtuned_py.scanner.remap.foothold.session import Session, Window
from ksmtuned_py.scanner.remap.share.freepages import stretches
from ksmtuned_py.scanner.remap.share.intact import change
from ksmtuned_py.scanner.remap.share.runs import PageRun, operations
from ksmtuned_py.scanner.remap.share.store import Store
from ksmtuned_py.scanner.remap.stop.stops import Busy
from ksmtuned_py.scanner.remap.stop.threads import Lost


def share(process: Process, window: Window, session: Session, runs: list[PageRun], contents: list[bytes]) -> None:
    """Has the guest map those parts of the runs whose content is that of the store; raises Refused and Gone.

    Nothing is changed when the time of a stop is over before that (Busy).
    """
    equal = [part for run, content in zip(runs, contents, strict=True) for part in _equal_parts(process, run, content)]
    if not equal:
        return
    if reason := change(process, equal):
        raise Refused(reason)
    area = session.area
    if policy := equal[0].eligible.policy:
        area.put_nodes(policy.nodes)
    table, maps = operations(equal, session.store_there, area.vector_address, area.nodes_address)
    if not table:
        return
    before = locked(process)
    if time.monotonic() - window.begun_seconds > session.stops.longest_seconds:
        raise Busy("the host is too busy: its pages could not be compared in the time that a stop takes")
    results = window.run(table)
    failed = [results[index] for index in maps if results[index] < 0]
    if failed:
        raise Refused(f"mmap in it failed: {os.strerror(-failed[0])}")
    if locked(process) != before:
        raise Lost(LOCKS)


def readable(store: Store, runs: list[PageRun]) -> tuple[list[PageRun], list[bytes]]:
    """Returns those runs whose contents can be read, and the contents; some of the store's memory may be broken."""
    able, contents = list[PageRun](), list[bytes]()
    for run in runs:
        with suppress(OSError):
            contents.append(store.read(run.offset, run.pages))
            able.append(run)
    return able, contents


def _equal_parts(process: Process, run: PageRun, content: bytes) -> Iterator[PageRun]:
    """Yields the parts of the run that now hold exactly what the store has, in private pages in memory."""
    if page_count(process.runs(run.address, run.address + run.size, PRIVATE)) != run.pages:
        return
    block = bytearray(run.size)
    if process.read([memoryview(block)], run.address) != run.size:
        return
    if block == content:
        yield run
        return
    words = np.frombuffer(block, np.uint64), np.frombuffer(content, np.uint64)
    same = (words[0] == words[1]).reshape(run.pages, -1).all(axis=1)
    for begin, end in stretches(same):
        yield run.part(begin, end - begin)
