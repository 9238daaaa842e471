"""A real guest in a real swap, as the doctor sees it."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.daemon import verb
from tests.support.need import need

# 64 MiB of its own that no zram makes small, offered to KSM, then paged out by itself.
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
