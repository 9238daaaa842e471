"""How the scheduler treats ksmd is read and set, and what cannot be seen for sure is left alone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ksmtuned_py.backends.kernel import KernelBackend
from ksmtuned_py.backends.ksmd import CAP_SYS_NICE, KsmdThread, find_ksmd
from ksmtuned_py.config.cpus import CPUS_MAX, cpu_list
from ksmtuned_py.door import Door
from ksmtuned_py.model import KSMD_NICE, Write, WriteStatus
from ksmtuned_py.sensors.status import has_capability
from tests.support.need import need
from tests.support.trees import KSMD_PID, make_fake_tree, put


@pytest.fixture
def child() -> Iterator[int]:
    """A process of ours in ksmd's place."""
    with subprocess.Popen(["sleep", "60"]) as process:
        os.setpriority(os.PRIO_PROCESS, process.pid, 5)
        yield process.pid
        process.kill()


def test_it_reads_back_as_it_was_set(child: int) -> None:
    need(os.geteuid() == 0, "root, to take a nice value back")
    ksmd = KsmdThread(Door(), child)
    assert ksmd.nice() == 5
    for nice in (19, -5, 5):
        ksmd.set_nice(nice)
        assert ksmd.nice() == nice
    assert os.sched_getscheduler(child) == os.SCHED_OTHER


def test_without_the_right_to_put_it_back_it_is_left_alone(child: int) -> None:
    """Root may put a process of its own behind all others without CAP_SYS_NICE, but never back."""
    need(os.geteuid() == 0, "root, to give up a capability")
    look = f"from ksmtuned_py.backends.ksmd import *; print(KsmdThread(Door(), {child}).nice())"
    words = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice", sys.executable, "-c", look]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "None\n"


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("CapEff:\t0000000000800000\n", True),
        ("CapEff:\t000001ffff7fffff\n", False),
        ("", False),
        ("CapEff:\tmany\n", False),
    ],
)
def test_a_capability_is_a_bit_of_the_kernels_mask(text: str, has: bool) -> None:
    assert has_capability(text, CAP_SYS_NICE) is has


def test_its_cpus_read_back_as_they_were_set(child: int) -> None:
    need(len(os.sched_getaffinity(0)) > 1, "two CPUs")
    ksmd, mine = KsmdThread(Door(), child), sorted(os.sched_getaffinity(0))
    found = ksmd.cpus()
    assert found is not None
    for cpus in (str(mine[0]), cpu_list(mine[:2]), found):
        ksmd.set_cpus(cpus)
        assert ksmd.cpus() == cpus


def test_a_cpu_that_goes_offline_changes_nothing(child: int, monkeypatch: pytest.MonkeyPatch) -> None:
    need(len(os.sched_getaffinity(0)) > 1, "two CPUs")
    ksmd, kernels = KsmdThread(Door(), child), os.sched_getaffinity
    cpus = cpu_list(sorted(kernels(0))[:2])
    ksmd.set_cpus(cpus)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(sorted(kernels(pid))[:1]))  # as the kernel does then
    assert ksmd.cpus() == cpus
    ksmd.set_cpus(cpus)  # so it is put back


def test_cpus_that_this_host_lacks_change_nothing(child: int) -> None:
    ksmd = KsmdThread(Door(), child)
    before = ksmd.cpus()
    for cpus in (f"0-{CPUS_MAX - 1}", str(CPUS_MAX - 1)):
        with pytest.raises(OSError, match=r"CPUs|Invalid"):
            ksmd.set_cpus(cpus)
        assert ksmd.cpus() == before


def test_no_process_of_a_user_is_taken_for_it_whatever_its_name(tmp_path: Path) -> None:
    tree = make_fake_tree(tmp_path)
    fields = "S 1 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 100 0"
    put(tree, "proc/7/comm", "ksmd\n")
    put(tree, "proc/7/stat", f"7 (ksmd) {fields}\n")
    assert find_ksmd(Door(str(tree))) == KSMD_PID
    (tree / f"proc/{KSMD_PID}/comm").unlink()
    assert find_ksmd(Door(str(tree))) is None


@pytest.mark.parametrize("scheduler", [os.SCHED_FIFO, os.SCHED_RR, os.SCHED_BATCH, os.SCHED_IDLE])
def test_a_class_that_somebody_has_chosen_is_left_alone(child: int, scheduler: int) -> None:
    need(os.geteuid() == 0, "root, for a realtime class")
    os.sched_setscheduler(child, scheduler, os.sched_param(1 if scheduler in (os.SCHED_FIFO, os.SCHED_RR) else 0))
    ksmd = KsmdThread(Door(), child)
    assert ksmd.nice() is None
    with pytest.raises(ProcessLookupError):
        ksmd.set_nice(0)
    assert os.sched_getscheduler(child) == scheduler


def test_where_it_is_not_to_be_seen_nothing_is_told_or_set(tmp_path: Path) -> None:
    for ksmd in (KsmdThread(Door(), None), KsmdThread(Door(str(tmp_path)), os.getpid())):
        assert (ksmd.nice(), ksmd.cpus()) == (None, None)
        assert (ksmd.cpu_seconds(), ksmd.waited_seconds()) == (None, None)
        with pytest.raises(ProcessLookupError):
            ksmd.set_nice(19)
        with pytest.raises(ProcessLookupError):
            ksmd.set_cpus("0")


def test_the_ksmd_of_another_host_is_not_ours_to_set(tmp_path: Path) -> None:
    backend = KernelBackend(Door(str(make_fake_tree(tmp_path))))
    assert backend.scanner_cpu_seconds() is not None
    assert backend.knobs().ksmd_nice is None
    result = backend.write(Write(knob=KSMD_NICE, old=5, new=19))
    assert (result.status, result.detail) == (
        WriteStatus.REFUSED,
        "ESRCH: ksmd is not to be seen here, or in a class of its own",
    )


def test_what_it_waited_for_a_cpu_is_told_beside_what_it_got(child: int) -> None:
    ksmd = KsmdThread(Door(), child)
    text = Path(f"/proc/{child}/schedstat").read_text().split()
    waited = ksmd.waited_seconds()
    assert waited is not None
    assert waited >= int(text[1]) / 1e9
    assert waited < 60
