"""Guests that make it hard to merge them, or use it against others: each is merged right, or refused by name."""

import errno
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ksmtuned_py.backends.scanlink import for_scanner
from ksmtuned_py.cli.workload import Mix, workloads
from ksmtuned_py.door import Door
from ksmtuned_py.scanner.pagemap import PAGE, PRIVATE
from ksmtuned_py.scanner.pages import ZERO, repeated
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.remap.foothold.area import AREA_BYTES, AREA_NAME, CODE_BYTES
from ksmtuned_py.scanner.remap.share.references import references
from ksmtuned_py.scanner.remap.share.remapper import Remapper
from ksmtuned_py.scanner.remap.share.store import Store
from ksmtuned_py.scanner.scanner import Watched
from ksmtuned_py.scanner.sweep import Sweep
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.sensors.stat import parse_stat
from ksmtuned_py.units import MIB
from tests.scan.conftest import Load, result, scanning, turn, wait_passes, wait_true
from tests.scan.crowd import Crowd, crowd, program
from tests.scan.killed import watch
from tests.scan.test_hostile import odd
from tests.scan.test_kill_points import in_a_fork
from tests.scan.test_lively import beside_others
from tests.scan.test_remap import REMAP, maps, store_bytes
from tests.scan.test_unwilling import FREEZERS, Freezer, freezer
from tests.scan.writers import Writer, runs_freely, stores, writers
from tests.support.need import need
from tests.support.process import wait_for
from tests.support.qemu import NOBODY

SLOW = REMAP.model_copy(update={"stop_window_ms": 100.0})
"""With time enough for a stop, however busy the host is."""
BROKEN_PAGES = 100
TRIES, TWICE_THE_CHANGE = 10, 512
"""How often giving back is tried at once; twice as many pages as a guest may map anew by itself meanwhile."""
CPU_LIMITS = [
    (root, texts)
    for root, texts in (
        (Path("/sys/fs/cgroup/cpu"), {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "5000"}),
        (Path("/sys/fs/cgroup"), {"cpu.max": "5000 100000"}),
    )
    if (root / "cgroup.procs").exists()
][:1]
"""5 of 100 ms, so that a guest that has used them up gets no processor for the other 95."""


def merged_bytes(one: Writer, begin: int, size: int) -> int:
    """Returns how much of this memory is mapped from a memfd of merged pages."""
    lines = [line.split() for line in Path(f"/proc/{one.pid}/maps").read_text().splitlines()]
    ranges = [[int(word, 16) for word in words[0].split("-")] for words in lines if "ksmtuned-py-pages" in words[-2]]
    return sum(max(0, min(end, begin + size) - max(start, begin)) for start, end in ranges)


def all_merged(one: Writer) -> bool:
    """Whether all is merged of the memory to which none of its threads writes."""
    begin, size = map(int, one.ask("where").split())
    return merged_bytes(one, begin, size) == size


def mapped_pages(one: Writer) -> int:
    """Returns the size of all that the guest has mapped."""
    return int(Path(f"/proc/{one.pid}/statm").read_text().split()[0])


STORE_AT, DEVICE_AT, INODE_AT = 48, 88, 96
"""Where in an area's header it is noted which file the guest's descriptor of the merged pages is."""
SHUT_AREA = """
import ctypes, mmap, os, struct, sys
size, code, *notes = map(int, sys.argv[2:])
memfd = os.memfd_create(sys.argv[1])
os.ftruncate(memfd, size)
area = mmap.mmap(memfd, size)
struct.pack_into("=I", area, code, 1)
for at, what in zip(notes[::2], notes[1::2]):
    struct.pack_into("=Q", area, code + at, what)
begin = ctypes.addressof(ctypes.c_char.from_buffer(area))
assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(begin), ctypes.c_size_t(code), mmap.PROT_READ)
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def shut_area(inode: str | int, user: int = NOBODY, store: int = 0) -> Iterator[None]:
    """Has a stranger map what looks like the area of a guest that is about to map pages of this memfd.

    `store` is a descriptor of the memfd that it has open under the same number; 0 when it has none.
    """
    device = os.fstat(store).st_dev if store else 0
    notes = [STORE_AT, store, DEVICE_AT, device, INODE_AT, int(inode)]
    words = [sys.executable, "-c", SHUT_AREA, AREA_NAME, *map(str, (AREA_BYTES, CODE_BYTES, *notes))]
    pipe, passed = subprocess.PIPE, [store] if store else []
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, user=user, pass_fds=passed) as process:
        assert process.stdout
        assert process.stdout.readline()
        yield
        process.kill()


@pytest.mark.parametrize("whose", ["nobody's, who has the memfd open", "root's, who has it not"])
def test_who_seems_to_be_about_to_map_pages_must_have_our_area_and_the_memfd(root: None, whose: str) -> None:
    began = parse_stat(Door().read("proc/self/stat")).start_ticks  # some may not be looked at, and were there before
    with closing(Store("ksmtuned-py-pages-test", 0)) as store:
        inode = store.key[1]
        with shut_area(inode, 0) if "not" in whose else shut_area(inode, NOBODY, store.readable):
            # A process that begins or ends meanwhile may keep one look from being certain.
            wait_true(lambda: result(references(Door(), {inode: 1}, began))[inode].certain, "a certain look")
        with shut_area(inode, 0, store.readable):
            assert not result(references(Door(), {inode: 1}, began))[inode].certain


@pytest.mark.parametrize("what", ["a file whose name looks like a line", "an area whose gate is shut"])
def test_what_any_process_of_the_host_has_mapped_keeps_no_memory(
    root: None, no_ksm: Door, tmp_path: Path, what: str
) -> None:
    with (
        workloads([Mix(equal_bytes=16 * MIB)] * 2, mergeable=False) as loads,
        scanning(no_ksm, REMAP, loads) as backend,
    ):
        wait_true(lambda: backend.counters().pages_sharing > 4000, "shared pages")
        (inode,) = {line.split()[4] for line in maps(loads[0]).splitlines() if "ksmtuned-py-pages" in line}
        with odd("mapping", "mapped", f"{tmp_path}/") if "file" in what else shut_area(inode):
            for load in loads:
                load.stop()
            wait_true(lambda: store_bytes(backend) == 0, "memory of what was shared")


def test_who_says_that_it_is_about_to_map_pages_of_others_keeps_none_of_them(root: None, no_ksm: Door) -> None:
    settings = REMAP.model_copy(update={"groups": ("forging", "load-*")})
    with (
        Writer("forging", 16) as one,
        workloads([Mix(equal_bytes=16 * MIB)] * 2, mergeable=False) as loads,
        scanning(no_ksm, settings, [one, *loads]) as backend,
    ):
        wait_true(lambda: bool(stores(one)) and store_bytes(backend) > 16 * MIB, "shared pages of both groups")
        wait_true(lambda: "ksmtuned-py-pages" in maps(loads[0]), "pages that the first of the others has mapped")
        turn(backend, "run", 0)
        (inode,) = {line.split()[4] for line in maps(loads[0]).splitlines() if "ksmtuned-py-pages" in line}
        begin = next(line.split("-")[0] for line in areas(one) if " rw-s " in line)
        with Path(f"/proc/{one.pid}/mem").open("r+b", buffering=0) as memory:
            for at, what in ((0, struct.pack("=I", 1)), (96, struct.pack("=Q", int(inode)))):
                memory.seek(int(begin, 16) + at)
                memory.write(what)
        for load in loads:
            load.stop()
        wait_true(lambda: store_bytes(backend) < 8 * MIB, "memory of what was shared by others")
        assert one.check()["wrong"] == 0


def areas(one: Writer) -> list[str]:
    return [line for line in Path(f"/proc/{one.pid}/maps").read_text().splitlines() if AREA_NAME in line]


@pytest.mark.parametrize(("root_of", "file", "on", "off"), FREEZERS)
def test_pages_that_a_frozen_guest_is_about_to_map_are_not_freed(
    root: None, root_of: Path, file: str, on: str, off: str
) -> None:
    with writers(2, 16) as (one, other), freezer(root_of, file, on, off, one) as frozen:
        assert in_a_fork(lambda: killed_when_told(other, one, frozen)) == -signal.SIGKILL
        remapper = Remapper(Door(), for_scanner(REMAP))
        list(remapper.tend([target(one)]))
        other.process.kill()
        other.process.wait()
        for _ in range(4):
            time.sleep(1.1)
            list(remapper.tend([target(one)]))
        frozen.freeze(on=False)
        wait_for(lambda: runs_freely(one) and bool(stores(one)), 5.0, "guest that runs freely, with merged pages")
        assert one.check()["wrong"] == 0
        for _ in range(4):
            time.sleep(1.1)
            list(remapper.tend([target(one)]))
        assert one.check()["wrong"] == 0


class Broken(Process):
    """A process of whose merged pages one cannot be read any more, as where memory is broken."""

    def read(self, buffers: Sequence[memoryview], address: int) -> int:
        inside = any(mapping.merged and mapping.start <= address < mapping.end for mapping in self.mappings())
        return 0 if inside else super().read(buffers, address)


def test_what_cannot_be_read_any_more_stays_merged_and_nothing_is_left_in_the_guest(root: None) -> None:
    remapper = Remapper(Door(), for_scanner(SLOW))
    with Writer("resting", idle_seconds=0.5) as one:
        merge_once(remapper, one)
        before = merged_bytes(one, 0, 1 << 47), mapped_pages(one)
        assert before[0]
        with Broken(target(one), Door()) as process:
            first = next(mapping.size for mapping in process.mappings() if mapping.merged) // PAGE
            for _ in range(1 + TWICE_THE_CHANGE // (TRIES * first)):
                wait_true(lambda: "cannot be read: it stays" in str(result(remapper.give_back(process))), "reason")
        assert merged_bytes(one, 0, 1 << 47) == before[0]
        assert mapped_pages(one) - before[1] < TWICE_THE_CHANGE // 2
        with Process(target(one), Door()) as process:
            wait_true(lambda: result(remapper.give_back(process)) is None, "pages given back")
        assert one.check()["wrong"] == 0


class HalfBroken(Store):
    """A store in whose memory some of the first pages are broken."""

    def read(self, offset: int, pages: int) -> bytes:
        if offset < BROKEN_PAGES:
            raise OSError(errno.EIO, "broken")
        return super().read(offset, pages)


def test_what_cannot_be_read_of_the_memfd_is_left_out_and_all_else_is_merged(root: None) -> None:
    remapper = Remapper(Door(), for_scanner(SLOW))
    with closing(HalfBroken("ksmtuned-py-pages-test", 0)) as store, writers(1) as (one,):
        remapper._stores._stores["", None] = store
        assert merge_once(remapper, one) is None
        lines = [line.split() for line in Path(f"/proc/{one.pid}/maps").read_text().splitlines()]
        offsets = [int(words[2], 16) // PAGE for words in lines if "ksmtuned-py-pages" in words[-2]]
        assert offsets
        assert min(offsets) >= BROKEN_PAGES
        assert one.check()["wrong"] == 0


def killed_when_told(other: Writer, one: Writer, frozen: Freezer) -> None:
    """Merges one guest, then freezes another as soon as it is told what to do, and kills this process."""
    remapper = Remapper(Door(), for_scanner(REMAP))
    merge_once(remapper, other)

    def seen(name: str) -> None:
        if name == "send":
            frozen.freeze(on=True)
        elif name == "recv":
            os.kill(os.getpid(), signal.SIGKILL)

    watch(seen)
    merge_once(remapper, one)


def target(one: Writer) -> Target:
    return Target(pid=one.pid, start_ticks=0, remap=True)


def merge_once(remapper: Remapper, one: Writer) -> str | None:
    """Merges once what was the same in two passes; returns why not, or not all. A busy host is tried again."""
    watched, sweep = Watched(target(one)), Sweep()
    with Process(watched.target, Door()) as process:
        for _ in range(2):
            list(sweep.guest(process, watched.table, PRIVATE, smart=False))
        slabs = watched.table.slabs.values()
        prints = repeated([slab.prints[slab.steady & (slab.prints > ZERO)] for slab in slabs])
        for _ in range(20):
            list(remapper.merge(process, watched, prints, split_huge=True))
            if "too busy" not in (watched.refusal or ""):
                break
            time.sleep(1.1)  # so long it is left alone
    return watched.refusal


@contextmanager
def little_time(one: Writer) -> Iterator[None]:
    """Limits the CPU time of a guest in the with block."""
    root, texts = CPU_LIMITS[0]
    directory = root / f"ksmtuned-py-test-{os.getpid()}"
    directory.mkdir()
    try:
        for name, text in texts.items():
            need((directory / name).exists(), "a control group that can limit CPU time")
            (directory / name).write_text(text)
        (directory / "cgroup.procs").write_text(str(one.pid))
        yield
    finally:
        (root / "cgroup.procs").write_text(str(one.pid))
        wait_for(lambda: not (directory / "cgroup.procs").read_text(), 5.0, "group without a process")
        directory.rmdir()


def test_a_guest_that_has_used_up_its_time_loses_no_byte_and_holds_nobody_up(root: None, no_ksm: Door) -> None:
    with odd("limited") as one, little_time(one), beside_others(no_ksm, one) as (backend, _):
        for _ in range(5):
            wait_passes(backend, 2)
            assert one.check()["wrong"] == 0


SLEEPING = ("sleeping", "sleeping-on")


@pytest.fixture(scope="module")
def guests(machine: Door) -> Iterator[Crowd]:
    """Guests with memory that rests; threads of two sleep on words in it."""

    def sleep(guests: Mapping[str, Load]) -> None:
        for name in SLEEPING:
            one = guests[name]
            assert isinstance(one, Writer)
            one.ask("sleep")

    with crowd(
        machine, {name: program("resting", idle_seconds=0.2) for name in (*SLEEPING, "guarding")}, sleep
    ) as found:
        for name in found.guests:
            wait_true(lambda name=name: all_merged(found[name]), "merged pages")  # type: ignore[misc] # mypy cannot infer a lambda's default
        yield found


def test_who_sleeps_on_a_word_is_woken_after_it_was_merged(guests: Crowd) -> None:
    assert guests["sleeping"].ask("wake") == "20 of 20\n"
    assert guests["sleeping"].check()["wrong"] == 0


def test_and_after_it_was_given_back(guests: Crowd) -> None:
    turn(guests.backend, "run", 2)
    wait_true(lambda: not stores(guests["sleeping-on"]), "pages given back")
    assert guests["sleeping-on"].ask("wake") == "20 of 20\n"
    turn(guests.backend, "run", 1)
    assert guests["sleeping-on"].check()["wrong"] == 0


def test_memory_that_ends_with_a_fault_since_it_was_merged_stays_so_and_nothing_is_left(guests: Crowd) -> None:
    one = guests["guarding"]
    wait_true(lambda: all_merged(one), "merged pages")
    done = one.ask("guard").strip()
    need(done == "guarded", "Linux 6.15 or newer: guards in memory of a file")
    before = mapped_pages(one)
    reasons = ("a mapping of it has the flag gu", "some of its memory cannot be read")
    for _ in range(3):
        turn(guests.backend, "run", 2)
        wait_true(lambda: any(reason in guests.reason("guarding") for reason in reasons), "reason")
        turn(guests.backend, "run", 0)
    assert mapped_pages(one) - before < 256
    assert one.check()["wrong"] == 0
    turn(guests.backend, "run", 1)
    guests.are_well()
