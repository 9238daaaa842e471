"""The fake trees are as they are ordered. test_captured_trees.py compares them with real ones."""

from pathlib import Path

import psutil
import pytest

from ksmtuned_py.units import GIB, KIB
from tests.support.trees import GUESTS, KSMD_PID, FakeGuest, add_guest, make_fake_tree, meminfo, put


def test_what_is_set_can_be_read(tmp_path: Path) -> None:
    root = make_fake_tree(tmp_path, run=1, general_profit=-64, files={"proc/meminfo": "mine\n"})
    assert (root / "sys/kernel/mm/ksm/run").read_text() == "1\n"
    assert (root / "sys/kernel/mm/ksm/general_profit").read_text() == "-64\n"
    assert (root / "sys/kernel/mm/ksm/advisor_mode").read_text() == "[none] scan-time\n"
    assert (root / "proc/meminfo").read_text() == "mine\n"


def test_none_takes_a_file_away(tmp_path: Path) -> None:
    root = make_fake_tree(tmp_path, smart_scan=None, files={"proc/pressure/memory": None})
    assert not (root / "sys/kernel/mm/ksm/smart_scan").exists()
    assert not (root / "proc/pressure/memory").exists()
    put(root, "proc/pressure/memory", None)  # removing what is gone already is fine


def test_an_old_kernel_has_no_new_files(tmp_path: Path) -> None:
    root = make_fake_tree(tmp_path, kernel="6.1")
    assert not (root / "sys/kernel/mm/ksm/general_profit").exists()
    assert (root / "proc/1001/ksm_stat").read_text() == "ksm_rmap_items 0\n"
    with pytest.raises(AssertionError, match=r"Linux 6\.1 has no \{'smart_scan'\}"):
        make_fake_tree(tmp_path, kernel="6.1", smart_scan=1)


def test_psutil_sees_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_fake_tree(tmp_path, guests=[*GUESTS, FakeGuest(pid=7, name="vm) 7 (", comm="a) R (b", rss_pages=3)])
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(root / "proc"))
    assert sorted(psutil.pids()) == [7, KSMD_PID, *(guest.pid for guest in GUESTS)]
    odd = psutil.Process(7)
    assert (odd.name(), odd.cmdline()[2]) == ("a) R (b", "guest=vm) 7 (")
    assert odd.memory_info().rss == 3 * 4096
    assert psutil.Process(KSMD_PID).name() == "ksmd"
    assert psutil.virtual_memory().total == 16 * GIB


def test_a_guest_can_come_later_and_change(tmp_path: Path) -> None:
    root = make_fake_tree(tmp_path, guests=())
    add_guest(root, FakeGuest(pid=9, name="late", merging_pages=10, zero_pages=2, rmap_items=100))
    assert "ksm_process_profit 42752\n" in (root / "proc/9/ksm_stat").read_text()
    add_guest(root, FakeGuest(pid=9, name="late", mergeable=False))
    assert "ksm_mergeable: no\n" in (root / "proc/9/ksm_stat").read_text()


def test_meminfo_takes_any_line() -> None:
    text = meminfo(total_bytes=2 * GIB, SwapTotal=77)
    assert f"MemTotal:        {2 * GIB // KIB} kB\n" in text
    assert "SwapTotal:            77 kB\n" in text
