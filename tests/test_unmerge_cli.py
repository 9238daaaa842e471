"""`ksmtuned-py unmerge` on the real kernel: Ctrl-C in the middle, and to the end."""

import signal
from pathlib import Path

import pytest

from ksmtuned_py.units import MIB
from ksmtuned_py.workload import Mix, workloads
from tests.support.daemon import KSMTUNED, verb
from tests.support.ksmlock import RealKsm
from tests.support.process import Program, wait_for

pytestmark = pytest.mark.kernel

PROCESSES, EQUAL_BYTES = 4, 400 * MIB
"""Giving back what these merge takes the kernel about 0.6 s."""


def test_ctrl_c_leaves_what_was_given_back_and_ksmd_stopped(real_ksm: RealKsm, tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    with workloads([Mix(equal_bytes=EQUAL_BYTES)] * PROCESSES):
        real_ksm.write("pages_to_scan", 50_000)
        real_ksm.write("sleep_millisecs", 2)
        real_ksm.write("run", 1)
        merged = real_ksm.wait_saved((PROCESSES - 1) * EQUAL_BYTES // 4096 * 95 // 100, 60.0)
        with Program([*KSMTUNED, "unmerge", "--all", "--runtime-dir", str(runtime)], tmp_path) as unmerge:
            wait_for(lambda: real_ksm.saved_pages() < merged * 95 // 100, 20.0, "begin", every_seconds=0.005)
            assert unmerge.end(signal.SIGINT) == 130
            assert "still merged; ksmd is stopped (run=0)" in unmerge.output()
        assert real_ksm.number("run") == 0
        assert 0 < real_ksm.saved_pages() < merged
        done = verb("unmerge", "--all", "--runtime-dir", runtime)
        assert done.returncode == 0, done.stderr
        assert (real_ksm.number("run"), real_ksm.saved_pages()) == (0, 0)
