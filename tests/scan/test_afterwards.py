"""What stays when the daemon has gone, and what else the documentation says that merging costs."""

import os
import signal
import sys
from pathlib import Path

import pytest

from ksmtuned_py.cli.workload import Mix, Workload, workloads
from ksmtuned_py.door import Door
from tests.scan.conftest import scanning, turn, wait_true
from tests.scan.contents import equal_page
from tests.scan.test_remap import REMAP, maps, store_bytes
from tests.scan.writers import Writer
from tests.support.need import need

MIB = 1 << 20
EQUAL_BYTES = 32 * MIB
PAGE = 4096


def kept_bytes(load: Workload) -> int:
    """Returns the memory of the memfd that a guest keeps open."""
    for file in Path(f"/proc/{load.pid}/fd").iterdir():
        if "ksmtuned-py-pages" in str(file.readlink()):
            return file.stat().st_blocks * 512
    return 0


@pytest.mark.parametrize("given_back", [False, True], ids=["as it was", "given back before"])
def test_a_guest_that_is_filled_anew_pays_for_the_old_pages_unless_they_were_given_back(
    root: None, no_ksm: Door, given_back: bool
) -> None:
    with workloads([Mix(equal_bytes=EQUAL_BYTES)] * 2, mergeable=False) as loads:
        with scanning(no_ksm, REMAP, loads) as backend:
            wait_true(lambda: backend.counters().pages_sharing >= 0.95 * EQUAL_BYTES // PAGE, "shared pages")
            if given_back:
                turn(backend, "run", 2)
                wait_true(lambda: backend.counters().pages_shared == store_bytes(backend) == 0, "pages given back")
        for load in loads:
            load.spoil(EQUAL_BYTES // PAGE)
        assert (kept_bytes(loads[0]) > 0.9 * EQUAL_BYTES) is not given_back
        assert ("ksmtuned-py-pages" in maps(loads[0])) is not given_back
        assert [load.wrong_pages() for load in loads] == [0, 0]


@pytest.mark.parametrize("bit", [0, 4], ids=["as usual", "with files"])
def test_a_core_dump_has_merged_pages_only_where_its_filter_says_so(
    root: None, no_ksm: Door, tmp_path: Path, bit: int
) -> None:
    need(not Path("/proc/sys/kernel/core_pattern").read_text().startswith(("|", "/")), "core dumps in files")
    tmp_path.chmod(0o777)
    command = (sys.executable, "-m", "tests.scan.lively", "16", f"dumping={tmp_path}")
    with Writer("dumping", command=command, idle_seconds=0.2) as one:  # what it writes is its own again
        core_filter = Path(f"/proc/{one.pid}/coredump_filter")
        core_filter.write_text(hex(int(core_filter.read_text(), 16) & ~4 | bit))
        with scanning(no_ksm, REMAP, [one]) as backend:
            wait_true(lambda: backend.counters().pages_sharing > 1000, "shared pages")
        os.kill(one.pid, signal.SIGABRT)
        one.process.wait(60)
        (core,) = tmp_path.glob("core*")
        content = core.read_bytes()
        pages = {content[at : at + PAGE] for at in range(0, len(content), PAGE)}
        found = sum(equal_page(number) in pages for number in range(1024))
        assert found > 500 if bit else found < 300
