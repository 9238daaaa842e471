"""Guests with very much memory, or very many mappings: no step takes long, or the guest is refused."""

import ctypes
import gc
import mmap
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ksmtuned_py.door import Door
from ksmtuned_py.guests.mappings import Mapping
from ksmtuned_py.scanner.pagemap import PRIVATE
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.refuse.eligibility import mappings_refusal
from ksmtuned_py.scanner.remap.refuse.flags import eligible_now, refuse_long_walks
from ksmtuned_py.scanner.remap.share.references import references
from ksmtuned_py.scanner.remap.share.stores import Stores
from ksmtuned_py.scanner.sweep import Sweep
from ksmtuned_py.scanner.table import PAGE_TABLE_BYTES, Slab, Table
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.sensors.stat import parse_stat
from tests.scan.conftest import result, worked
from tests.support.need import need

PAGE = mmap.PAGESIZE
GIB = 1 << 30
NORESERVE, NOHUGEPAGE, POPULATE_READ = 0x4000, 15, 22
MANY = 20_000
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p


@contextmanager
def ourselves() -> Iterator[Process]:
    with Process(Target(pid=os.getpid(), start_ticks=0), Door()) as process:
        yield process


@contextmanager
def small_pages(size: int, filled: int) -> Iterator[int]:
    """Maps so much memory, and the one page of zeros at each place of its first part; yields the address."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE
    address = libc.mmap(None, ctypes.c_size_t(size), 3, flags, -1, ctypes.c_long(0))
    assert address
    place = ctypes.c_void_p(address)
    try:
        libc.madvise(place, ctypes.c_size_t(size), NOHUGEPAGE)
        done = libc.madvise(place, ctypes.c_size_t(filled), POPULATE_READ)
        need(not done, "Linux 5.14 or newer, and room for page tables")
        yield address
    finally:
        libc.munmap(place, ctypes.c_size_t(size))


def test_a_mapping_of_many_small_pages_is_refused_and_a_large_empty_one_is_not(root: None) -> None:
    with small_pages(1024 * GIB, 33 * GIB) as address, ourselves() as process:
        mapping = Mapping(address, address + 1024 * GIB, "rw-p", 0, 0, "")
        with pytest.raises(Refused, match="so many small pages"):
            list(refuse_long_walks(process, [mapping]))
        empty = Mapping(address + 33 * GIB, address + 1024 * GIB, "rw-p", 0, 0, "")
        assert len(list(refuse_long_walks(process, [empty]))) > 900


class Only(Process):
    """Ourselves, with nothing but one mapping."""

    def __init__(self, begin: int, size: int) -> None:
        self._all = [Mapping(begin, begin + size, "rw-p", 0, 0, "")]
        super().__init__(Target(pid=os.getpid(), start_ticks=0), Door())

    def mappings(self) -> list[Mapping]:
        return self._all


def test_memory_that_is_only_set_aside_takes_no_room_and_far_too_much_of_it_is_a_reason() -> None:
    table = Table()
    with small_pages(1024 * GIB, PAGE) as address, Only(address, 1024 * GIB) as process:
        ctypes.memset(address + 512 * GIB, 1, 2 * PAGE)
        steps = list(Sweep().guest(process, table, PRIVATE, smart=True))
        assert len(steps) > 4096  # it may be told something after each window
        assert (table.pages, table.bytes, len(table.slabs)) == (2, 2 * PAGE_TABLE_BYTES, 1)
    with Only(1 << 30, 17 << 40) as process:
        table.slabs[0] = Slab(0)
        with pytest.raises(Refused, match="more than 16 TiB"):
            list(Sweep().guest(process, table, PRIVATE, smart=True))
        assert not table.slabs


@contextmanager
def mappings(count: int) -> Iterator[None]:
    """Has so many mappings for a while: each second page of a piece of memory is protected."""
    with mmap.mmap(-1, (count + 1) * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        anchor = ctypes.c_char.from_buffer(memory)
        begin = ctypes.addressof(anchor)
        for page in range(0, count, 2):
            assert not libc.mprotect(ctypes.c_void_p(begin + page * PAGE), PAGE, mmap.PROT_READ)
        yield
        del anchor


@contextmanager
def without_collections() -> Iterator[None]:
    """Python looks for garbage when it likes, which takes long in a process with as much as a run of all tests has."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_flags_of_many_mappings_are_read_in_small_steps(root: None) -> None:
    with mappings(MANY), ourselves() as process, without_collections():
        work = eligible_now(Door(), process, PAGE)
        seconds = [time.process_time(), *(time.process_time() for _ in work), time.process_time()]
        steps = [after - before for before, after in pairwise(seconds)]
        assert len(steps) > 20
        assert max(steps) < sum(steps) / 3
        found, _ = worked(eligible_now(Door(), process, PAGE))[1]
        assert len(found) >= MANY / 2


@contextmanager
def a_still_one() -> Iterator[Process]:
    """Somebody whose mappings do not change while they are read, unlike ours."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.stdin
        assert cat.stdout
        cat.stdin.write(b"ready\n")
        cat.stdin.flush()
        assert cat.stdout.readline() == b"ready\n"
        with Process(Target(pid=cat.pid, start_ticks=0), Door()) as process:
            yield process
        cat.stdin.close()


def test_what_is_read_mapping_by_mapping_is_all_there(root: None) -> None:
    with a_still_one() as process:
        for name, size in (("smaps", 512), ("numa_maps", 32)):
            whole = process.read_text(name).splitlines()
            pieces = b"".join(process.pieces(name, size)).decode().splitlines()
            assert [line.split()[0] for line in pieces] == [line.split()[0] for line in whole]


@contextmanager
def long_names(tmp_path: Path, parts: int, count: int) -> Iterator[None]:
    """Has so many mappings of one file for a while, whose path has so many long parts."""
    directory = os.open(tmp_path, os.O_RDONLY)
    for _ in range(parts):  # one after the other, as no call takes such a path
        os.mkdir("a" * 250, dir_fd=directory)
        below = os.open("a" * 250, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    file = os.open("file", os.O_RDWR | os.O_CREAT, dir_fd=directory)
    os.close(directory)
    os.write(file, bytes(PAGE))
    words = (mmap.PROT_READ, mmap.MAP_PRIVATE, file, ctypes.c_long(0))
    places = [libc.mmap(None, ctypes.c_size_t(PAGE), *words) for _ in range(count)]  # of one part: they stay apart
    os.close(file)
    yield
    for place in places:
        assert not libc.munmap(ctypes.c_void_p(place), ctypes.c_size_t(PAGE))


def test_who_has_mapped_very_much_keeps_nobodys_pages_from_being_freed(root: None, tmp_path: Path) -> None:
    began = parse_stat(Door().read("proc/self/stat")).start_ticks  # some may not be looked at, and were there before
    with closing(result(Stores(Door()).of("large", None))) as store:
        store.add(memoryview(bytes(range(256)) * 16), np.array([5], np.uint64))
        assert result(references(Door(), {store.key[1]: store.end}, began))[store.key[1]].certain
        with long_names(tmp_path, 15, 18_000):
            works, found = worked(references(Door(), {store.key[1]: store.end}, began))
            assert found[store.key[1]].certain
            assert works.count(1) > 1000  # it may be told something after each part


def test_more_mappings_than_can_be_looked_at_are_a_reason(root: None, tmp_path: Path) -> None:
    one = Mapping(0, PAGE, "rw-p", 0, 0, "")
    assert mappings_refusal([one] * 100_000, 1 << 30) is None
    assert "more than 100000 mappings" in str(mappings_refusal([one] * 100_001, 1 << 30))
    with long_names(tmp_path, 3, 15_000), ourselves() as process, pytest.raises(Refused, match="too many mappings"):
        process.mappings()
