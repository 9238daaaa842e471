"""Plans which runs of a guest's pages are remapped to which runs of the store, and with which system calls."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ksmtuned_py.scanner.pagemap import PAGE, Kind
from ksmtuned_py.scanner.pages import ZERO, Prints, contains, prints
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.remap.foothold.area import MOST_OPERATIONS, Operation
from ksmtuned_py.scanner.remap.processors.architecture import NR
from ksmtuned_py.scanner.remap.processors.layout import END
from ksmtuned_py.scanner.remap.refuse.eligibility import Eligible
from ksmtuned_py.scanner.remap.refuse.numa import MOST_NODES
from ksmtuned_py.scanner.remap.share.store import Store
from ksmtuned_py.scanner.table import SLAB_BYTES, PageNumbers, Slab, numbers

MOST_PAGES = 512
"""The most pages of one run, whose mmap takes the guest about 50 us."""
_READ_WRITE, _PRIVATE, _FIXED, _ANONYMOUS, _NORESERVE = 3, 2, 0x10, 0x20, 0x4000
_ADD_AT_ONCE = 256
FOUND_PER_PAGE = 64
"""How many prints are looked up among many others in the time in which one page is read."""
Call = tuple[int, tuple[int, ...]]
"""A system call's number and its arguments."""


@dataclass(frozen=True, slots=True)
class PageRun:
    """Consecutive pages of a guest, and of the store."""

    address: int
    pages: int
    offset: int
    """Page number in the store."""
    eligible: Eligible

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.pages * PAGE

    def part(self, first: int, pages: int) -> "PageRun":
        """Returns the run of some of its pages."""
        return PageRun(self.address + first * PAGE, pages, self.offset + first, self.eligible)


def plan(
    process: Process, slab: Slab, wanted: Prints, store: Store, eligible: Eligible, kind: Kind
) -> Generator[int, None, list[PageRun]]:
    """Returns the mapping's runs in a slab whose contents are wanted or stored already; puts missing contents there.

    Only pages of the kind are taken. Yields the work of each step, in pages.
    """
    chosen = slice(*_between(slab, eligible.mapping.start, eligible.mapping.end))
    contents, pages = slab.prints[chosen], slab.pages[chosen]
    able = slab.steady[chosen] & (contents != ZERO) & (contains(wanted, contents) | contains(store.known, contents))
    yield 1 + len(pages) // FOUND_PER_PAGE
    if not able.any():
        return []
    start, end = (slab.base + page * PAGE for page in (int(pages[0]), int(pages[-1]) + 1))
    able &= np.isin(pages, numbers(process.runs(start, end, kind), slab.base))
    pages, contents = pages[able], contents[able]
    yield from _add_missing(process, slab.base, pages, contents, store)
    kept = contains(store.known, contents)
    return _runs(slab.base, pages[kept], store.offsets(contents[kept]).astype(np.int64), eligible)


def by_slab(allowed: Iterable[Eligible]) -> dict[int, list[Eligible]]:
    """Returns the mappings that touch each slab, by the slab's base."""
    found: dict[int, list[Eligible]] = {}
    for one in allowed:
        for base in range(one.mapping.start - one.mapping.start % SLAB_BYTES, one.mapping.end, SLAB_BYTES):
            found.setdefault(base, []).append(one)
    return found


def steady_prints(slab: Slab, start: int, end: int) -> Prints:
    """Returns the slab's prints between two addresses whose pages may be merged and are not zero."""
    chosen = slice(*_between(slab, start, end))
    found: Prints = slab.prints[chosen][slab.steady[chosen] & (slab.prints[chosen] != ZERO)]
    return found


def operations(runs: list[PageRun], store_there: int, vector: int, nodes: int) -> tuple[list[Operation], list[int]]:
    """Returns the table for the guest, and which entries are the mmaps, for as many runs as fit in.

    An mmap that fails has not changed anything (Linux 6.12+), or has left a hole. Over a hole mincore fails, too, and
    the hole is filled with what was there. The memfd has the NUMA policy already; memory without a file has to get it.
    """
    table: list[Operation] = []
    maps = []
    for run in runs:
        eligible, here = run.eligible, len(table)
        flags = _PRIVATE | _FIXED | (0 if eligible.reserve else _NORESERVE)
        share = (run.address, run.size, _READ_WRITE, flags, store_there, run.offset * PAGE)
        fill = [
            (NR["mmap"], (run.address, run.size, _READ_WRITE, flags | _ANONYMOUS, -1, 0)),
            *bind(run.address, run.size, eligible, nodes),
            (NR["pread64"], (store_there, run.address, run.size, run.offset * PAGE)),
        ]
        advice = advise(run.address, run.size, eligible)
        filled = here + 2 + len(fill)
        if filled + len(advice) > MOST_OPERATIONS:
            break
        maps.append(here)
        table.append((NR["mmap"], share, filled, here + 1))
        table.append((NR["mincore"], (run.address, run.size, vector), filled + len(advice), here + 2))
        table += in_turn([*fill, *advice], here + 2)
    return closed(table), maps


def advise(address: int, size: int, eligible: Eligible) -> list[Call]:
    """Returns the calls that set again what madvise had set on the mapping."""
    return [(NR["madvise"], (address, size, advice)) for advice in eligible.advice]


def bind(address: int, size: int, eligible: Eligible, nodes: int) -> list[Call]:
    """Returns the calls that set the mapping's NUMA policy again, if it has one; its nodes are at that address."""
    if not eligible.policy:
        return []
    return [(NR["mbind"], (address, size, eligible.policy.mode, nodes, MOST_NODES + 1, 0))]


def in_turn(calls: list[Call], first: int) -> list[Operation]:
    """Returns these calls as entries of a table from that number on; each runs, however the one before has ended."""
    return [(*call, first + index, first + index) for index, call in enumerate(calls, start=1)]


def closed(table: list[Operation]) -> list[Operation]:
    """Returns the table with whatever would come behind its last entry replaced by the end."""
    length = len(table)
    return [
        (number, arguments, success if success < length else END, failure if failure < length else END)
        for number, arguments, success, failure in table
    ]


def _between(slab: Slab, start: int, end: int) -> tuple[int, int]:
    """Returns the slab's pages that lie between these addresses, as a slice."""
    first, last = (start - slab.base) // PAGE, (end - slab.base) // PAGE
    begin, end = np.searchsorted(slab.pages.astype(np.int64), (first, last)).tolist()
    return begin, end


def _add_missing(process: Process, base: int, pages: PageNumbers, contents: Prints, store: Store) -> Iterator[int]:
    missing = ~contains(store.known, contents)
    _, first = np.unique(contents[missing], return_index=True)
    first.sort()  # the order is the guest's, so that runs stay runs
    todo, expected = pages[missing][first].tolist(), contents[missing][first]
    for begin in range(0, len(todo), _ADD_AT_ONCE):
        part = todo[begin : begin + _ADD_AT_ONCE]
        block = memoryview(bytearray(len(part) * PAGE))
        for index, page in enumerate(part):
            process.read([block[index * PAGE : (index + 1) * PAGE]], base + page * PAGE)
        found = prints(block)
        same = found == expected[begin : begin + _ADD_AT_ONCE]
        content = np.frombuffer(block, np.uint8).reshape(-1, PAGE)[same]
        store.add(memoryview(content.tobytes()), found[same])
        yield len(part)
    store.index()


def _runs(base: int, pages: PageNumbers, offsets: NDArray[np.int64], eligible: Eligible) -> list[PageRun]:
    if not len(pages):
        return []
    places = pages.astype(np.int64)
    breaks = np.flatnonzero((np.diff(places) != 1) | (np.diff(offsets) != 1)) + 1
    found = []
    for begin, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(places)], strict=True):
        for at in range(begin, end, MOST_PAGES):
            address = base + int(places[at]) * PAGE
            found.append(PageRun(address, min(MOST_PAGES, end - at), int(offsets[at]), eligible))
    return found
