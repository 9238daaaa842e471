"""Fixtures for tests of the scan backend: processes to scan, the worker's answer, and a swap in memory."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from ksmtuned_py.backends.scan import ScanBackend
from ksmtuned_py.backends.scanlink import WorkerPatience
from ksmtuned_py.config import Config, InForce, Scan
from ksmtuned_py.door import Door
from ksmtuned_py.model import THP_DIRECTORY, Guest, KnobName, Write, WriteStatus
from ksmtuned_py.scanner.choice import target_of
from ksmtuned_py.scanner.survey import survey
from tests.support.need import need
from tests.support.process import wait_for
from tests.support.qemu import FilledGuest, filled_guests, need_qemu
from tests.support.workers import REMAPS, group

SWAP_LOCK = Path("/run/lock/ksmtuned-py-swap.lock")
ZRAM = Path("/sys/block/zram0")
ZRAM_BYTES = 1 << 30
SWAP_LABEL = b"ksmtuned-tests"
"""The label of the tests' swap devices, for which 15 characters fit."""
LABEL_AT = 1024 + 12 + 16
"""Place of the label in a swap device: behind version, last page, bad pages and UUID (include/linux/swap.h)."""
PASS_SECONDS = 180.0
QEMU_EQUAL_BYTES, QEMU_OWN_BYTES = 32 << 20, 8 << 20
AS_LIBVIRT = (
    *("-machine", "dump-guest-core=off,mem-merge=off"),
    *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
)
T = TypeVar("T")


@pytest.fixture
def root() -> None:
    """Skips, or fails in CI, without the rights to read another process's memory."""
    need(os.geteuid() == 0, "root, to read other processes' memory")


@pytest.fixture(autouse=True)
def swap_stays_away(request: pytest.FixtureRequest) -> Iterator[None]:
    """No other worker's test has a swap while a test looks at remapped guests."""
    if not group(request.node.nodeid).startswith(REMAPS) or os.geteuid() != 0:
        yield
        return
    with no_swap_meanwhile():
        yield


@contextmanager
def no_swap_meanwhile() -> Iterator[None]:
    """Keeps tests with a swap waiting; others go on."""
    with SWAP_LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@pytest.fixture
def no_ksm(tmp_path: Path) -> Door:
    """Presents this machine as one without CONFIG_KSM: its /proc, its control groups, its huge pages."""
    return without_ksm(tmp_path / "root")


def without_ksm(root: Path) -> Door:
    """Makes such a machine's root directory."""
    root.mkdir()
    (root / "sys/kernel/mm").mkdir(parents=True)
    (root / THP_DIRECTORY).symlink_to(f"/{THP_DIRECTORY}")
    (root / "sys/fs").symlink_to("/sys/fs")
    (root / "proc").symlink_to("/proc")
    return Door(str(root))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The same for all tests of a file, whose guests and worker then live as long."""
    need(os.geteuid() == 0, "root, to read other processes' memory")
    with no_swap_meanwhile():
        yield without_ksm(tmp_path_factory.mktemp("machine") / "root")


@pytest.fixture
def zram_swap(root: None) -> Iterator[None]:
    """Makes a swap device in memory, for this test alone."""
    with zram():
        yield


@contextmanager
def zram() -> Iterator[None]:
    """Makes a swap device in memory, for the length of a with block; one at a time on this machine."""
    need(ZRAM.is_dir() and bool(shutil.which("mkswap")), "a free zram0 and mkswap")
    with SWAP_LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        take_over_zram()
        (ZRAM / "disksize").write_text(str(ZRAM_BYTES))
        try:
            subprocess.run(["mkswap", "--label", SWAP_LABEL, "/dev/zram0"], check=True, capture_output=True)
            subprocess.run(["swapon", "-p", "100", "/dev/zram0"], check=True)
            yield
        finally:
            subprocess.run(["swapoff", "/dev/zram0"], check=False, capture_output=True)
            (ZRAM / "reset").write_text("1")


def take_over_zram() -> None:
    """Empties zram0: one that nobody uses, or that a test of ours has left in use when it was killed."""
    if "/dev/zram0" in Path("/proc/swaps").read_text():
        with Path("/dev/zram0").open("rb") as device:
            device.seek(LABEL_AT)
            need(device.read(len(SWAP_LABEL)) == SWAP_LABEL, "a zram0 that is not in use")
        subprocess.run(["swapoff", "/dev/zram0"], check=True, capture_output=True)
    (ZRAM / "reset").write_text("1")


@pytest.fixture(scope="module")
def qemu_guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FilledGuest]]:
    """Two guests as libvirt starts them, for a whole file, as a boot takes three seconds of CPU.

    Without mem-merge they need no lock: the real ksmd has nothing to do with them.
    """
    need_qemu()
    directory = tmp_path_factory.mktemp("guests")
    sizes = {"equal_bytes": QEMU_EQUAL_BYTES, "own_bytes": QEMU_OWN_BYTES}
    with filled_guests(["scan-1", "scan-2"], directory, **sizes, more=AS_LIBVIRT) as found:
        yield found


class Load(Protocol):
    """A process to scan."""

    name: str

    @property
    def pid(self) -> int: ...


def guest(load: Load) -> Guest:
    """Returns the guest that a workload process is."""
    stat = Path(f"/proc/{load.pid}/stat").read_text().rpartition(")")[2].split()
    return Guest(pid=load.pid, start_ticks=int(stat[19]), name=load.name, kind="pattern")


@contextmanager
def scanning(
    door: Door, settings: Scan | InForce, loads: Sequence[Load], *, patience: WorkerPatience | None = None, **knobs: int
) -> Iterator[ScanBackend]:
    """Yields a scan backend at work on the processes, as fast as it can unless the knobs say otherwise."""
    in_force = settings if isinstance(settings, InForce) else InForce(Config(scan=settings))
    with closing(ScanBackend(in_force, door, patience)) as backend:
        backend.watch([guest(load) for load in loads])
        fast: dict[KnobName, int] = {"pages_to_scan": 100_000, "sleep_millisecs": 1, "smart_scan": 0, "run": 1}
        for name, value in fast.items():
            turn(backend, name, knobs.get(name, value))
        yield backend


def turn(backend: ScanBackend, name: KnobName, value: int) -> None:
    """Sets one knob, and waits until the worker has it."""
    result = backend.write(Write(knob=name, old=0, new=value))
    assert result.status in (WriteStatus.OK, WriteStatus.PENDING), result
    wait_for(lambda: backend.knobs().get(name) == value, 10.0, f"{name} = {value}")


def wait_passes(backend: ScanBackend, passes: int) -> None:
    """Waits until so many more whole passes are done."""
    begun = backend.counters().full_scans
    wait_for(lambda: backend.counters().full_scans >= begun + passes, PASS_SECONDS, f"end of {passes} passes")


def wait_true(look: Callable[[], bool], what: str) -> None:
    """Waits for something that a few passes bring about."""
    wait_for(look, PASS_SECONDS, what)


def told(backend: ScanBackend, words: str) -> bool:
    """Whether the admin is told of that by now."""
    backend.counters()
    return any(words in problem for problem in backend.problems)


def vmstat(name: str) -> int:
    """Returns the number in one line of /proc/vmstat."""
    words = Path("/proc/vmstat").read_text().split()
    return int(words[words.index(name) + 1])


def rss_bytes(pid: int) -> int:
    """Returns a process's resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def zero_pages(loads: Sequence[Load], door: Door) -> int:
    """Returns the zero pages of the processes, by a look of its own; an interpreter has some beside its workload's."""
    targets = [target_of(guest(load), Scan()) for load in loads]
    return sum(sample.zero_pages for sample in survey(targets, 0.01, door, lambda done, pages: None))


def worked(steps: Generator[int, None, T]) -> tuple[list[int], T]:
    """Takes all steps of some work; returns the work of each, and the result."""
    works = []
    while True:
        try:
            works.append(next(steps))
        except StopIteration as end:
            return works, end.value


def result(steps: Generator[int, None, T]) -> T:
    """Takes all steps of some work, and returns its result."""
    return worked(steps)[1]
