"""The workload's content and its savings are as it promises."""

import signal
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from math import ceil

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.cli.workload import (
    COMM,
    PAGE_BYTES,
    Mix,
    Region,
    Workload,
    WorkloadFailed,
    achievable_pages,
    equal_block,
    workloads,
)
from ksmtuned_py.units import MIB
from tests.support.process import children, end_all, wait_for

SMALL = st.integers(0, 12).map(lambda pages: pages * PAGE_BYTES)
MIXES = st.lists(
    st.builds(
        Mix, equal_bytes=SMALL, zero_bytes=SMALL, unique_bytes=SMALL, changing_bytes=SMALL, seed=st.integers(0, 2)
    ),
    max_size=6,
)
PARENT = """
import time
from ksmtuned_py.cli.workload import Mix, Workload
print(Workload("orphan", Mix(unique_bytes=4096)).wait_ready().pid, flush=True)
time.sleep(60)
"""


@given(mixes=MIXES, sharing=st.integers(2, 5), use_zero_pages=st.booleans())
def test_achievable_pages_is_what_counting_every_page_gives(
    mixes: list[Mix], sharing: int, use_zero_pages: bool
) -> None:
    copies = Counter((mix.seed, page) for mix in mixes for page in range(mix.equal_bytes // PAGE_BYTES))
    zero = sum(mix.zero_bytes for mix in mixes) // PAGE_BYTES
    counted = sum(count - ceil(Fraction(count, sharing)) for count in copies.values())
    counted += zero if use_zero_pages else zero - ceil(Fraction(zero, sharing))
    assert achievable_pages(mixes, max_page_sharing=sharing, use_zero_pages=use_zero_pages) == counted


def test_a_region_has_no_two_equal_pages_and_notices_a_wrong_byte() -> None:
    region = Region(MIB + 3 * PAGE_BYTES, bytes(range(256)) * (MIB // 256))
    pages = {region.memory[begin : begin + PAGE_BYTES] for begin in range(0, len(region.memory), PAGE_BYTES)}
    assert len(pages) == len(region) == MIB // PAGE_BYTES + 3
    assert region.wrong_pages() == 0
    region.memory[MIB + 5000] ^= 1
    region.memory[0] ^= 1
    assert region.wrong_pages() == 2


def test_rewritten_pages_are_new_and_still_checked() -> None:
    region = Region(4 * PAGE_BYTES, bytes(range(256)) * (MIB // 256))
    before = region.memory[:]
    assert region.rewrite_next(3) == 3
    assert region.memory[: 3 * PAGE_BYTES] != before[: 3 * PAGE_BYTES]
    assert region.memory[3 * PAGE_BYTES :] == before[3 * PAGE_BYTES :]
    assert region.rewrite_next(100) == 4
    assert region.wrong_pages() == 0


def test_a_child_shows_its_name_its_memory_and_its_content() -> None:
    mix = Mix(equal_bytes=3 * MIB, zero_bytes=2 * MIB, unique_bytes=4 * MIB, changing_bytes=MIB, changes_per_second=500)
    with Workload("mine", mix, comm="qemu-kvm").wait_ready() as child:
        process = psutil.Process(child.pid)
        assert process.name() == "qemu-kvm"
        words = process.cmdline()
        assert words[words.index("-name") + 1] == "guest=mine"
        assert process.memory_info().rss > 10 * MIB
        assert child.wrong_pages() == 0
        assert child.spoil(100_000) == 3 * MIB // PAGE_BYTES
        assert child.wrong_pages() == 0
    assert not process.is_running()


def test_equal_pages_are_equal_in_every_child_of_a_seed_and_in_no_other() -> None:
    first, same, other = (equal_block(seed) for seed in (7, 7, 8))
    assert Region(MIB, first).memory[:] == Region(MIB, same).memory[:]
    assert Region(MIB, first).memory[:] != Region(MIB, other).memory[:]


def test_a_child_ends_with_its_parent() -> None:
    before = children()
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    wait_for(lambda: pid not in {child.pid for child in children() - before}, 5, "end of the orphan")


def test_a_dead_child_is_an_error_with_its_name() -> None:
    with workloads([Mix()], prefix="dead") as (child,):
        end_all([psutil.Process(child.pid)])
        with pytest.raises(WorkloadFailed, match=r"^workload dead-1: it (ended|has ended)"):
            child.wrong_pages()


def test_the_default_name_fits_a_process_name() -> None:
    assert len(COMM) <= 15  # TASK_COMM_LEN, linux/sched.h
