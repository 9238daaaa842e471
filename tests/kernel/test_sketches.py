"""What two groups of guests share by their sketches is what the kernel merges when they come together."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ksmtuned_py.cli.workload import Mix, Workload, workloads
from ksmtuned_py.door import Door
from ksmtuned_py.scanner.sketch import GuestSketch, shared
from ksmtuned_py.scanner.sketching import Sketching
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.units import MIB
from tests.support.daemon import verb
from tests.support.ksmlock import RealKsm
from tests.support.process import wait_for
from tests.support.qemu import Guest

pytestmark = pytest.mark.kernel

KEY = b"k" * 32
PAGE = 4096
HERE = [Mix(equal_bytes=24 * MIB, zero_bytes=4 * MIB, unique_bytes=8 * MIB, seed=11)] * 2
THERE = [
    Mix(equal_bytes=16 * MIB, zero_bytes=2 * MIB, unique_bytes=12 * MIB, seed=11),
    Mix(equal_bytes=20 * MIB, unique_bytes=8 * MIB, seed=12),
]
FAST = {"pages_to_scan": 100_000, "sleep_millisecs": 1, "smart_scan": 0, "use_zero_pages": 1}


def sketches(guests: Sequence[Workload | Guest]) -> list[GuestSketch]:
    found = []
    for guest in guests:
        reading = Sketching(Target(pid=guest.pid, start_ticks=0, name=guest.name), Door(), KEY)
        sketch = reading.answer()
        assert sketch is not None, reading.problem
        found.append(sketch)
    return found


def merged(ksm: RealKsm) -> int:
    """The bytes that are saved once all is merged."""
    ksm.write("run", 1)
    passes = ksm.number("full_scans")
    wait_for(lambda: ksm.number("full_scans") >= passes + 4, 60, "four passes")
    ksm.write("run", 0)
    return ksm.saved_pages() * PAGE


def test_what_is_said_to_be_shared_is_merged(real_ksm: RealKsm) -> None:
    for name, setting in FAST.items():
        real_ksm.write(name, setting)
    with workloads(HERE, prefix="here") as here:
        before = merged(real_ksm)
        of_here = sketches(here)
        with workloads(THERE, prefix="there") as there:
            coming = sketches(there)
            said = sum(shared(guest, [*of_here, *coming[:number]]).pages * PAGE for number, guest in enumerate(coming))
            came_true = merged(real_ksm) - before
            assert [one.wrong_pages() for one in (*here, *there)] == [0] * 4
    assert said == pytest.approx(came_true, rel=0.1)


def test_the_verbs_from_one_host_to_another(real_ksm: RealKsm, tmp_path: Path) -> None:
    key, file = tmp_path / "key", tmp_path / "host.json"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    mix = Mix(equal_bytes=4 * MIB, unique_bytes=2 * MIB, seed=13)
    with workloads([mix] * 2, prefix="sketched") as guests:
        done = verb("sketch", file, "--key", key)
        assert (done.returncode, done.stderr) == (0, "")
        answer = verb("migrate-check", "sketched-1", "--there", file, "--key", key, "--json")
        told = verb("migrate-check", "sketched-1")
        size = Path(f"/proc/{guests[0].pid}/statm").read_text().split()[1]
    found = json.loads(answer.stdout)
    assert answer.returncode == 0
    assert found["takes_bytes"] == pytest.approx(int(size) * PAGE, rel=0.02)
    assert found["there"][0]["fits"]
    assert found["there"][0]["shares_bytes"] == 6 * MIB  # all of it, for it is there itself
    assert told.stdout.startswith("sketched-1 takes ")


USERFAULT = """
import ctypes, mmap, os, struct, sys, fcntl
kept, places = [], []
for _ in range(2):
    memory = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    memory.madvise(mmap.MADV_MERGEABLE)
    memory[:4096] = os.urandom(4096)
    kept.append(memory)
    places.append(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
fault = ctypes.CDLL(None, use_errno=True).syscall(323, 0)
assert fault >= 0
fcntl.ioctl(fault, 0xC018AA3F, bytearray(struct.pack("QQQ", 0xAA, 0, 0)))
fcntl.ioctl(fault, 0xC020AA00, bytearray(struct.pack("QQQQ", places[1], 1 << 20, 1, 0)))
print(*places, flush=True)
sys.stdin.read()
"""


def test_memory_whose_faults_another_handles_is_left_alone(real_ksm: RealKsm) -> None:
    words = [sys.executable, "-c", USERFAULT]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stdin
        places = [int(word) for word in child.stdout.readline().split()]
        reading = Sketching(Target(pid=child.pid, start_ticks=0, name="child"), Door(), KEY)
        sketch = reading.answer()
        with open(f"/proc/{child.pid}/mem", "rb") as memory:
            contents = [os.pread(memory.fileno(), PAGE, place) for place in places]
        child.stdin.close()
    assert sketch is not None
    assert [_value_of(content) in sketch.at(0) for content in contents] == [True, False]


def _value_of(content: bytes) -> str:
    from ksmtuned_py.scanner.pages import prints
    from ksmtuned_py.scanner.sketch import value

    [found] = prints(memoryview(content)).tolist()
    return value(KEY, found)


def test_a_guest_that_hangs_is_left_behind(real_ksm: RealKsm, tmp_path: Path) -> None:
    """A pipe in place of its mappings never answers."""
    with workloads([Mix(unique_bytes=MIB)]) as [guest]:
        tree = tmp_path / "proc" / str(guest.pid)
        tree.mkdir(parents=True)
        for name in ("stat", "mem", "pagemap"):
            (tree / name).symlink_to(f"/proc/{guest.pid}/{name}")
        os.mkfifo(tree / "smaps")
        reading = Sketching(Target(pid=guest.pid, start_ticks=0, name="guest"), Door(str(tmp_path)), KEY)
        assert reading.answer(0.2) is None
        assert reading.problem == "it does not answer: its memory map is locked"
        (tree / "smaps").write_text("")
        wait_for(lambda: not reading.is_alive(), 10, "the end of its thread")
