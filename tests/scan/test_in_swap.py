"""A real guest in a real swap, as the doctor sees it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ksmtuned_py.doctor.mends import ZRAM
from ksmtuned_py.units import GIB, KIB
from tests.support.daemon import verb
from tests.support.need import need

# The guest offers 64 MiB of its own that no zram makes small to KSM, and pages them out by itself.
PROGRAM = """
import ctypes, mmap, os
need = ctypes.CDLL(None).prctl(67, 1, 0, 0, 0)
memory = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
memory.write(os.urandom(64 << 20))
memory.madvise(21)  # MADV_PAGEOUT
print(need, flush=True)
input()
"""


def test_a_guest_in_swap_is_told_of_as_that(zram_swap: None, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        need(process.stdout.readline() == "0\n", "a kernel with PR_SET_MEMORY_MERGE")
        done = verb("doctor", str(process.pid), "--json", "--runtime-dir", tmp_path / "none")
        process.communicate("\n")
    (found,) = (each for each in json.loads(done.stdout) if each["code"] == "in_swap")
    assert done.returncode == 1
    assert found["guest"].endswith(f"-{process.pid}")
    assert " MiB are in swap, by /proc/" in found["evidence"]


def swaps() -> dict[str, int]:
    """Returns each swap device with its size in KiB."""
    lines = [line.split() for line in Path("/proc/swaps").read_text().splitlines()[1:]]
    return {device: int(size) for device, _, size, *_ in lines}


@contextmanager
def taken_out_again() -> Iterator[None]:
    """Takes out, at the end, the swap devices in memory that were not there before."""
    before, blocks = swaps(), {path.name for path in Path("/sys/block").glob("zram*")}
    try:
        yield
    finally:
        for device in swaps().keys() - before.keys():
            subprocess.run(["swapoff", device], check=True)
        for name in {path.name for path in Path("/sys/block").glob("zram*")} - blocks:
            Path("/sys/class/zram-control/hot_remove").write_text(name.removeprefix("zram"))


def test_the_mend_for_want_of_swap_leaves_a_device_alone_that_is_somebodys(zram_swap: None) -> None:
    need(bool(shutil.which("zramctl")) and Path("/sys/class/zram-control").is_dir(), "zramctl")
    before = swaps()
    with taken_out_again():
        subprocess.run(["sh", "-c", ZRAM], check=True, capture_output=True)
        after = swaps()
    assert before.items() <= after.items()
    assert [round(size * KIB / GIB) for device, size in after.items() if device not in before] == [4]
