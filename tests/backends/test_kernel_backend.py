"""The kernel backend works on made-up trees. tests/kernel has the same for the real kernel."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ksmtuned_py.backends.kernel import PATHS, SPLITTER, KernelBackend, parse_advisor_mode
from ksmtuned_py.backends.ksmd import find_ksmd
from ksmtuned_py.door import Door
from ksmtuned_py.errors import Garbage, NoKsm
from ksmtuned_py.model import (
    ASIDE,
    KNOB_NAMES,
    Counters,
    KnobName,
    Knobs,
    KnobValue,
    Run,
    Write,
    WriteResult,
    WriteStatus,
)
from tests.support.process import children, wait_for
from tests.support.trees import KSM, KSMD_PID, FakeGuest, add_guest, make_fake_tree, put

OK, PENDING, REFUSED, LOST = WriteStatus.OK, WriteStatus.PENDING, WriteStatus.REFUSED, WriteStatus.LOST
RUNS = {"asleep": 0, "scanning": 1, "giving back": 2, "giving back, and memory goes offline": 6}
ADVISOR: tuple[KnobName, ...] = tuple(name for name in KNOB_NAMES if name.startswith("advisor_"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A fake tree."""
    return make_fake_tree(tmp_path)


@pytest.fixture
def backend(root: Path) -> Iterator[KernelBackend]:
    """The backend on the fake tree."""
    with closing(KernelBackend(Door(str(root)))) as backend:
        yield backend


def write(backend: KernelBackend, knob: KnobName, new: KnobValue, old: KnobValue = 0) -> WriteResult:
    """Write one knob."""
    return backend.write(Write(knob=knob, old=old, new=new))


def link(root: Path, knob: KnobName, target: str) -> None:
    """Put another kernel file in a knob's place, which answers in its own way."""
    put(root, f"{KSM}/{knob}", None)
    (root / KSM / knob).symlink_to(target)


def test_a_kernel_without_ksm(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/mm").mkdir(parents=True)
    with pytest.raises(NoKsm, match=r"sys/kernel/mm/ksm: no such directory: this kernel was built without CONFIG_KSM"):
        KernelBackend(Door(str(tmp_path)))


def test_every_knob_of_a_new_kernel(backend: KernelBackend) -> None:
    knobs = backend.knobs()
    assert [name for name, _ in knobs.items()] == [name for name in KNOB_NAMES if name not in ASIDE]
    assert (knobs.run, knobs.pages_to_scan, knobs.smart_scan, knobs.advisor_mode) == (0, 100, 1, "none")


def test_run_is_one_of_three_values(tmp_path: Path) -> None:
    seen = [KernelBackend(Door(str(make_fake_tree(tmp_path / name, run=run)))) for name, run in RUNS.items()]
    assert [backend.knobs().run for backend in seen] == [Run.STOP, Run.MERGE, Run.UNMERGE, Run.UNMERGE]
    assert all(isinstance(backend.knobs().run, Run) for backend in seen)
    with pytest.raises(Garbage, match=r"ksm/run: wanted 0, 1 or 2, found '3'"):
        KernelBackend(Door(str(make_fake_tree(tmp_path / "none", run=3)))).knobs()


def test_an_old_kernel_lacks_some(tmp_path: Path) -> None:
    backend = KernelBackend(Door(str(make_fake_tree(tmp_path, kernel="6.1", merge_across_nodes=None))))
    knobs, counters = backend.knobs(), backend.counters()
    assert [knobs.get(name) for name in (*ADVISOR, "smart_scan", "merge_across_nodes")] == [None] * 7
    assert (counters.pages_scanned, counters.ksm_zero_pages, counters.general_profit) == (None, None, None)
    assert counters.pages_shared == 0


def test_counters(tmp_path: Path) -> None:
    root = make_fake_tree(tmp_path, pages_sharing=7, ksm_zero_pages=-1, general_profit=-64, full_scans=2)
    counters = KernelBackend(Door(str(root))).counters()
    assert counters == Counters(
        pages_sharing=7,
        ksm_zero_pages=-1,
        general_profit=-64,
        full_scans=2,
        pages_scanned=0,
        pages_skipped=0,
        stable_node_chains=0,
        stable_node_dups=0,
    )
    assert counters.saved_pages == 7


@pytest.mark.parametrize(("shown", "run"), [(4, 0), (5, 1), (6, 2)])
def test_run_during_a_memory_hot_remove(root: Path, backend: KernelBackend, shown: int, run: int) -> None:
    put(root, f"{KSM}/run", f"{shown}\n")
    assert backend.knobs().run == run


@pytest.mark.parametrize("text", ["", "12 13\n", "0x10\n", "\0\0", "no\n", "--1\n", "٣\n"])
@pytest.mark.parametrize("name", ["pages_to_scan", "pages_sharing", "advisor_mode"])
def test_garbage_names_the_file_and_what_was_wanted(root: Path, backend: KernelBackend, name: str, text: str) -> None:
    put(root, f"{KSM}/{name}", text)
    with pytest.raises(Garbage, match=rf"/{KSM}/{name}: wanted (a decimal number|'\[none\] scan-time')"):
        (backend.counters() if name == "pages_sharing" else backend.knobs())


def test_the_advisor_says_which_mode_is_chosen() -> None:
    assert parse_advisor_mode("", "[none] scan-time\n") == "none"
    assert parse_advisor_mode("", "none [scan-time]\n") == "scan-time"
    with pytest.raises(Garbage):
        parse_advisor_mode("", "none scan-time [pid]\n")


def test_cpu_time_of_ksmd(root: Path) -> None:
    put(root, f"proc/{KSMD_PID}/schedstat", "1500000000 200 3\n")
    assert find_ksmd(Door(str(root))) == KSMD_PID
    assert KernelBackend(Door(str(root))).scanner_cpu_seconds() == 1.5


def test_nobody_passes_for_ksmd_by_its_name(root: Path) -> None:
    """On a host with many processors, reused PIDs are below that of ksmd."""
    for pid in range(1, KSMD_PID):
        add_guest(root, FakeGuest(pid=pid, name="", comm="ksmd"))
    assert find_ksmd(Door(str(root))) == KSMD_PID
    put(root, f"proc/{KSMD_PID}/stat", None)
    assert find_ksmd(Door(str(root))) is None


def test_no_cpu_time_where_ksmd_cannot_be_seen(root: Path) -> None:
    put(root, f"proc/{KSMD_PID}/schedstat", None)
    assert KernelBackend(Door(str(root))).scanner_cpu_seconds() is None
    put(root, f"proc/{KSMD_PID}/comm", "another\n")
    assert KernelBackend(Door(str(root))).scanner_cpu_seconds() is None


def test_a_write_is_one_number_and_is_read_back(root: Path, backend: KernelBackend) -> None:
    for knob, value in (("pages_to_scan", 500), ("run", 1), ("advisor_max_cpu", 20)):
        assert write(backend, knob, value).status is OK  # type: ignore[arg-type] # mypy has the names as str
        assert (root / KSM / knob).read_text() == str(value)


def test_a_value_the_kernel_does_not_take(root: Path, backend: KernelBackend) -> None:
    link(root, "pages_to_scan", "/proc/self/oom_score_adj")  # says EINVAL from 1001 on
    result = write(backend, "pages_to_scan", 5000)
    assert (result.status, result.detail) == (
        REFUSED,
        "EINVAL: the kernel does not take this value now (is its advisor on?)",
    )


def test_a_value_that_does_not_stay(root: Path, backend: KernelBackend) -> None:
    link(root, "sleep_millisecs", "/proc/self/timerslack_ns")  # takes 0 for the default
    result = write(backend, "sleep_millisecs", 0)
    assert (result.status, result.detail[:14]) == (LOST, "reads back as ")


def test_any_other_error_is_told_as_the_kernel_put_it(root: Path, backend: KernelBackend) -> None:
    link(root, "smart_scan", "/dev/full")
    assert write(backend, "smart_scan", 0).detail == "ENOSPC: No space left on device"
    put(root, f"{KSM}/smart_scan", None)
    assert write(backend, "smart_scan", 0).detail == "ENOENT: No such file or directory"


@pytest.fixture
def blocked(root: Path) -> Iterator[Path]:
    """Make `run` a file whose writers wait, as for ksmd's mutex. Afterwards they can go on."""
    file = root / KSM / "run"
    file.unlink()
    os.mkfifo(file)
    yield file
    if stat.S_ISFIFO(file.stat().st_mode):
        unblock(file)


def unblock(file: Path) -> None:
    """End the wait, so that the writes that waited go through."""
    put(file.parent, "run.new", file.read_text())
    (file.parent / "run.new").rename(file)


def test_a_write_that_waits_for_ksmd_holds_up_nothing(blocked: Path, backend: KernelBackend) -> None:
    results = [write(backend, "run", 1), write(backend, "run", 1), write(backend, "pages_to_scan", 77)]
    assert [result.status for result in results] == [PENDING, PENDING, OK]
    assert results[0].detail == "ksmd holds its mutex for a long batch"
    assert write(backend, "run", 0).status is PENDING  # it has to wait for its turn
    unblock(blocked)
    wait_for(lambda: write(backend, "run", 0).status is OK, 5, "its turn")
    assert blocked.read_text() == "0"


def test_a_write_that_failed_while_nobody_waited_is_made_anew(root: Path, backend: KernelBackend) -> None:
    link(root, "max_page_sharing", "/proc/self/oom_score_adj")
    for _ in range(2):
        assert write(backend, "max_page_sharing", 2000).status is REFUSED


def unmerged(backend: KernelBackend) -> WriteResult:
    """Wait for run=2, and return how it ended."""

    def ended() -> WriteResult | None:
        result = write(backend, "run", 2)
        return None if result.status is PENDING else result

    result = wait_for(ended, 5, "end of unmerging")
    assert result
    return result


def test_unmerging_is_pending_until_its_child_has_ended(root: Path, backend: KernelBackend) -> None:
    assert write(backend, "run", 2).status is PENDING
    assert unmerged(backend).status is OK
    assert (root / KSM / "run").read_text() == "2"


def test_unmerging_that_fails_says_why(root: Path, backend: KernelBackend) -> None:
    link(root, "run", "/dev/full")
    result = unmerged(backend)
    assert result.status is REFUSED
    assert "No space left on device" in result.detail


def test_another_run_aborts_unmerging(blocked: Path, backend: KernelBackend) -> None:
    before = children()
    assert write(backend, "run", 2).status is PENDING
    assert len(children() - before) == 1
    assert write(backend, "run", 1).status is PENDING
    assert children() == before
    unblock(blocked)


def test_wanted_and_seen_have_the_same_shape(backend: KernelBackend) -> None:
    assert isinstance(backend.knobs(), Knobs)
    assert backend.page_bytes == os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("shrinks", "none"), [(None, 511), ("0\n", 511), ("1\n", None), ("perhaps\n", None)])
def test_no_huge_pages_of_anybodys_are_split_for_what_khugepaged_is_told(
    root: Path, shrinks: str | None, none: int | None
) -> None:
    put(root, PATHS["khugepaged_max_ptes_shared"], "256\n")
    put(root, PATHS["khugepaged_max_ptes_none"], "511\n")
    put(root, SPLITTER, shrinks)
    knobs = KernelBackend(Door(str(root))).knobs()
    assert (knobs.khugepaged_max_ptes_shared, knobs.khugepaged_max_ptes_none) == (256, none)
