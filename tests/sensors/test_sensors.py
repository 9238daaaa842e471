"""Sensors read the host in every shape it comes in, and raise only Garbage where it makes no sense."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.door import MOST_BYTES, Door
from ksmtuned_py.errors import Garbage, Unreadable
from ksmtuned_py.model import Pressure, Stall, Vmstat
from ksmtuned_py.sensors.cpus import parse_idle_jiffies, read_idle_seconds
from ksmtuned_py.sensors.memory import parse_arcstats, parse_meminfo, read_memory
from ksmtuned_py.sensors.pressure import open_trigger, parse_pressure, read_cpu_pressure, read_pressure
from ksmtuned_py.sensors.vmstat import parse_vmstat, read_vmstat
from ksmtuned_py.units import GIB, KIB, MIB
from tests.support.need import need
from tests.support.trees import make_fake_tree, meminfo

ARCSTATS = """\
12 1 0x01 98 26656 5000000000 9000000000
name                            type data
hits                            4    1000
c_min                           4    {c_min}
c_max                           4    17179869184
size                            4    {size}
"""
LINES = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.sampled_from(["MemTotal:  x kB", "MemTotal: 5 kB", "some avg10=x", "full total=1", "cow_ksm x", "size 4 x"]),
    )
).map("\n".join)


@pytest.fixture
def door(tmp_path: Path) -> Door:
    """A door to a host of 16 GiB."""
    return Door(str(make_fake_tree(tmp_path)))


def test_memory_in_bytes() -> None:
    text = meminfo(total_bytes=16 * GIB, available_bytes=4 * GIB, SwapTotal=2048, SwapFree=1024, Hugetlb=GIB // KIB)
    memory = parse_meminfo("meminfo", text)
    assert (memory.total_bytes, memory.available_bytes) == (16 * GIB, 4 * GIB)
    assert (memory.swap_total_bytes, memory.swap_free_bytes) == (2 * MIB, MIB)
    assert memory.base_bytes == 15 * GIB


def test_lines_nobody_knows_do_not_matter() -> None:
    assert parse_meminfo("meminfo", meminfo() + "Unaccepted:  some odd text\nSoon: 12 pages\n") == parse_meminfo(
        "meminfo", meminfo()
    )


@pytest.mark.parametrize("name", ["MemTotal", "MemAvailable"])
def test_a_missing_line_is_named(name: str) -> None:
    text = "".join(line + "\n" for line in meminfo().splitlines() if not line.startswith(name))
    with pytest.raises(Garbage, match=f"meminfo: wanted a line {name}, found"):
        parse_meminfo("meminfo", text)


def test_a_host_without_swap_or_hugetlb_lines_has_none() -> None:
    memory = parse_meminfo("meminfo", "MemTotal: 100 kB\nMemAvailable: 50 kB\n")
    assert (memory.swap_total_bytes, memory.hugetlb_bytes, memory.base_bytes) == (0, 0, 100 * KIB)


def test_zfs_gives_back_what_is_above_its_minimum(tmp_path: Path) -> None:
    arc = ARCSTATS.format(c_min=GIB, size=3 * GIB)
    door = Door(str(make_fake_tree(tmp_path, files={"proc/spl/kstat/zfs/arcstats": arc})))
    memory = read_memory(door)
    assert memory.arc_reclaimable_bytes == 2 * GIB
    assert memory.headroom_bytes == memory.available_bytes + 2 * GIB
    assert parse_arcstats("arcstats", ARCSTATS.format(c_min=GIB, size=1)) == 0


def test_arcstats_without_its_rows_is_garbage() -> None:
    with pytest.raises(Garbage, match="rows size and c_min"):
        parse_arcstats("arcstats", "hits 4 1000\n")


def test_no_meminfo_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"proc/meminfo: cannot be read: no such file"):
        read_memory(Door(str(tmp_path)))


def test_pressure(door: Door) -> None:
    text = (
        "some avg10=1.50 avg60=0.25 avg300=0.00 total=2500000\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=1000000\n"
    )
    some = Stall(avg10_percent=1.5, avg60_percent=0.25, avg300_percent=0.0, total_seconds=2.5)
    full = Stall(avg10_percent=0.5, avg60_percent=0.0, avg300_percent=0.0, total_seconds=1.0)
    assert parse_pressure("memory", text) == Pressure(some=some, full=full)
    assert read_pressure(door) is not None


def test_pressure_on_cpus_before_linux_5_13(tmp_path: Path) -> None:
    text = "some avg10=12.50 avg60=1.00 avg300=0.00 total=2500000\n"
    seen = read_cpu_pressure(Door(str(make_fake_tree(tmp_path, files={"proc/pressure/cpu": text}))))
    assert seen is not None
    assert (seen.some.avg10_percent, seen.full.avg10_percent) == (12.5, 0)


def test_no_pressure_on_cpus_is_told_where_the_kernel_tells_none(tmp_path: Path) -> None:
    assert read_cpu_pressure(Door(str(make_fake_tree(tmp_path, files={"proc/pressure/cpu": None})))) is None
    assert read_cpu_pressure(DisabledAtBoot()) is None


def test_the_time_for_which_cpus_were_idle_with_what_they_waited_for_disks(tmp_path: Path) -> None:
    text = "cpu  100 0 200 4000 500 0 7 0 0 0\ncpu0 100 0 200 4000 500 0 7 0 0 0\nintr 12 3\n"
    seen = read_idle_seconds(Door(str(make_fake_tree(tmp_path, files={"proc/stat": text}))))
    assert seen == 4500 / os.sysconf("SC_CLK_TCK")
    for name, nothing in (("none", None), ("other", "intr 12 3\n"), ("empty", "")):
        assert read_idle_seconds(Door(str(make_fake_tree(tmp_path / name, files={"proc/stat": nothing})))) is None
    real = read_idle_seconds(Door())
    assert real is not None
    assert real > 0


@pytest.mark.parametrize("text", ["cpu", "cpu 1 2 3 4", "cpu 1 2 3 soon 5", "cpu 1 2 3 4 \x00"])
def test_idle_time_that_is_none_names_the_file_and_what_was_wanted(text: str) -> None:
    with pytest.raises(Garbage, match="/proc/stat"):
        parse_idle_jiffies("/proc/stat", text)


def test_huge_pages_of_the_host(tmp_path: Path) -> None:
    tree = make_fake_tree(tmp_path, files={"proc/meminfo": meminfo(AnonHugePages=2 * MIB // KIB)})
    assert read_memory(Door(str(tree))).anon_huge_bytes == 2 * MIB
    assert parse_meminfo("meminfo", "MemTotal: 100 kB\nMemAvailable: 50 kB\n").anon_huge_bytes == 0


def test_a_kernel_without_pressure(tmp_path: Path) -> None:
    door = Door(str(make_fake_tree(tmp_path, files={"proc/pressure/memory": None})))
    assert read_pressure(door) is None
    assert open_trigger(door, 150) is None


class DisabledAtBoot(Door):
    """A host with psi=0, whose pressure file exists but cannot be read (kernel/sched/psi.c)."""

    def read(self, relative: str, *, at: int | None = None, most_bytes: int = MOST_BYTES) -> str:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), self.path(relative))


def test_a_kernel_whose_pressure_is_disabled() -> None:
    assert read_pressure(DisabledAtBoot()) is None


def test_a_trigger_can_be_had_where_the_kernel_has_pressure() -> None:
    need(os.access("/proc/pressure/memory", os.W_OK), "PSI, and leave to set a trigger")
    descriptor = open_trigger(Door(), 150)
    assert descriptor is not None
    os.close(descriptor)


def test_a_trigger_that_the_kernel_refuses_is_none() -> None:
    need(os.access("/proc/pressure/memory", os.W_OK), "PSI, and leave to set a trigger")
    assert open_trigger(Door(), 5000) is None  # a longer stall than the window


def test_vmstat_takes_what_there_is(door: Door) -> None:
    assert parse_vmstat("vmstat", "nr_free 7\ncow_ksm 5\noom_kill 0\n") == Vmstat(cow_ksm=5, oom_kill=0)
    assert read_vmstat(door).cow_ksm == 0


def test_no_vmstat_is_no_events(tmp_path: Path) -> None:
    assert read_vmstat(Door(str(tmp_path))) == Vmstat()


@pytest.mark.parametrize("parse", [parse_meminfo, parse_arcstats, parse_pressure, parse_vmstat])
@given(text=LINES)
def test_any_text_is_read_or_is_garbage(parse: Callable[[str, str], object], text: str) -> None:
    with suppress(Garbage):  # any other exception would be a traceback for the admin
        parse("the/file", text)
