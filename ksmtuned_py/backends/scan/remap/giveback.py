"""Undoing: every merged run becomes private memory without a file again, with the content that the guest sees."""

import os
from collections.abc import Callable, Iterator

from ksmtuned_py.backends.scan.pagemap import PAGE
from ksmtuned_py.backends.scan.process import Gone, Process
from ksmtuned_py.backends.scan.remap.amd64 import END, NR
from ksmtuned_py.backends.scan.remap.area import Operation
from ksmtuned_py.backends.scan.remap.eligibility import Eligible, eligible
from ksmtuned_py.backends.scan.remap.runs import advise
from ksmtuned_py.backends.scan.remap.session import Session, Window
from ksmtuned_py.backends.scan.remap.threads import Refused

_PAGES = 256
"""Of one window: about 1 ms."""
_READ_WRITE, _PRIVATE, _ANONYMOUS, _NORESERVE = 3, 2, 0x20, 0x4000
_MAYMOVE_FIXED = 3


def give_back(process: Process, session: Session, check: Callable[[Process, str], None]) -> Iterator[int]:
    """Window by window; yields pages. Raises Refused and Gone."""
    size = process.read_text("statm").split()[0]
    merged = [one for one in eligible(process.read_text("smaps"), PAGE)[0] if one.mapping.merged]
    mem = os.open("mem", os.O_RDWR | os.O_CLOEXEC, dir_fd=process.directory)
    try:
        for one in merged:
            for address in range(one.mapping.start, one.mapping.end, _PAGES * PAGE):
                length = min(one.mapping.end - address, _PAGES * PAGE)
                with session.window(process) as window:
                    check(process, size)
                    _one(process, session, window, mem, address, length, one)
                yield length // PAGE
    finally:
        os.close(mem)


def _one(
    process: Process, session: Session, window: Window, mem: int, address: int, length: int, one: Eligible
) -> None:
    """A copy beside it, filled while all threads stand still, then moved over it in one step."""
    flags = _PRIVATE | _ANONYMOUS | (0 if one.reserve else _NORESERVE)
    copy = window.run([(NR["mmap"], (0, length, _READ_WRITE, flags, -1, 0), END, END)])[0]
    if copy < 0:
        raise Refused(f"mmap in it failed: {os.strerror(-copy)}")
    session.stage(copy, length)
    content = bytearray(length)
    if process.read([memoryview(content)], address) != length or os.pwrite(mem, content, copy) != length:
        raise Gone(process.target.name)
    move = (NR["mremap"], (copy, length, length, _MAYMOVE_FIXED, address))
    table: list[Operation] = [(*move, 2, 1), (*move, 2, END), *advise(address, length, one, 2)]
    table[-1] = (*table[-1][:2], END, END) if len(table) > 2 else table[-1]
    session.stage(0, 0)
    results = window.run([_within(entry, len(table)) for entry in table])
    if min(results[0], results[1]) < 0 <= max(results[0], results[1]):
        return
    if results[0] < 0:
        raise Refused(f"mremap in it failed: {os.strerror(-results[0])}")


def _within(entry: Operation, length: int) -> Operation:
    number, arguments, success, failure = entry
    return number, arguments, success if success < length else END, failure
