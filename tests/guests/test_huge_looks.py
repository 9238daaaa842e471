"""The huge pages of each guest become known one guest after the other, and nobody waits for a guest."""

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ksmtuned_py.door import Door
from ksmtuned_py.guests.hugelooks import AGAIN_SECONDS, SHARE, SILENT_MAX, HugeLooks
from ksmtuned_py.guests.patience import THREAD_NAME
from ksmtuned_py.guests.smaps import SMAPS_SECONDS, parse_rollup
from ksmtuned_py.model import Guest
from ksmtuned_py.units import MIB
from tests.support.process import wait_for
from tests.support.procs import add_process, remove_process
from tests.support.snapshots import guest

ROLLUP = """\
55d0c3a00000-7ffd1b5f5000 ---p 00000000 00:00 0                          [rollup]
Rss:              300000 kB
Pss:              299000 kB
AnonHugePages:    {kib} kB
ShmemPmdMapped:        0 kB
"""
GUEST = guest("web", pid=71)


@pytest.fixture
def looks(tmp_path: Path) -> Iterator[HugeLooks]:
    """The looks at the tree below tmp_path."""
    yield HugeLooks(Door(str(tmp_path)))
    wait_for(lambda: not asking(), 5.0, "end of the threads that asked")


def asking() -> int:
    """The number of threads that wait for an answer."""
    return sum(thread.name == THREAD_NAME for thread in threading.enumerate())


def add(root: Path, *guests: Guest, huge_bytes: int = 6 * MIB) -> None:
    """Add the guests' processes."""
    for each in guests:
        directory = add_process(root, each.pid, ["qemu-kvm"], start_ticks=each.start_ticks)
        (directory / "smaps_rollup").write_text(ROLLUP.format(kib=huge_bytes // 1024))


def known(looks: HugeLooks, guests: Sequence[Guest], now_seconds: float) -> list[int | None]:
    """What is known of the guests after a look, and once it has ended."""
    found = [each.huge_bytes for each in looks.look(guests, now_seconds)]
    wait_for(lambda: not asking(), 5.0, "end of a look")
    return found


def test_a_guest_is_known_at_the_next_look(tmp_path: Path, looks: HugeLooks) -> None:
    add(tmp_path, GUEST)
    assert known(looks, [GUEST], 0) == [None]
    assert known(looks, [GUEST], 1) == [6 * MIB]


def test_guests_take_turns_and_are_asked_again_after_a_minute(tmp_path: Path, looks: HugeLooks) -> None:
    guests = [guest(pid=pid) for pid in (71, 72, 73)]
    add(tmp_path, *guests)
    seen = [known(looks, guests, now) for now in range(4)]
    assert [each.count(None) for each in seen] == [3, 2, 1, 0]
    add(tmp_path, *guests, huge_bytes=0)
    assert known(looks, guests, AGAIN_SECONDS - 1).count(0) == 0
    for now in range(3):
        known(looks, guests, 2 * AGAIN_SECONDS + now)
    assert known(looks, guests, 2 * AGAIN_SECONDS + 3) == [0, 0, 0]


def test_a_guest_that_has_grown_since_is_unknown_until_it_is_asked_again_at_once(
    tmp_path: Path, looks: HugeLooks
) -> None:
    add(tmp_path, GUEST, huge_bytes=0)
    known(looks, [GUEST], 0)
    assert known(looks, [GUEST], 1) == [0]
    add(tmp_path, GUEST)
    grown = replace(GUEST, rss_bytes=2 * GUEST.rss_bytes)
    assert [known(looks, [grown], now) for now in (2, 3, 4)] == [[None], [6 * MIB], [6 * MIB]]
    assert known(looks, [replace(GUEST, rss_bytes=GUEST.rss_bytes // 2)], 5) == [6 * MIB]


def test_a_pid_that_is_another_process_by_now_tells_nothing(tmp_path: Path, looks: HugeLooks) -> None:
    add(tmp_path, guest(pid=71))
    other = Guest(pid=71, start_ticks=5, name="web", kind="qemu")
    known(looks, [other], 0)
    assert known(looks, [other], 1) == [None]


def test_a_guest_that_ended_is_forgotten(tmp_path: Path, looks: HugeLooks) -> None:
    add(tmp_path, GUEST)
    known(looks, [GUEST], 0)
    remove_process(tmp_path, GUEST.pid)
    assert known(looks, [], 1) == []
    assert known(looks, [GUEST], 2) == [None]
    assert known(looks, [GUEST], 3) == [None]


def test_a_kernel_or_a_right_that_is_missing_leaves_it_unknown(tmp_path: Path, looks: HugeLooks) -> None:
    add_process(tmp_path, GUEST.pid, ["qemu-kvm"], start_ticks=GUEST.start_ticks)
    known(looks, [GUEST], 0)
    assert known(looks, [GUEST], 1) == [None]
    assert parse_rollup("Rss: 1 kB\n") is None
    assert parse_rollup("AnonHugePages: much\n") is None


def test_guests_that_do_not_answer_keep_the_others_waiting_only_for_a_while(tmp_path: Path, looks: HugeLooks) -> None:
    hung, well = [guest(pid=pid) for pid in range(71, 71 + SILENT_MAX - 1)], guest(pid=99)
    add(tmp_path, *hung, well)
    fifos = [tmp_path / f"proc/{each.pid}/smaps_rollup" for each in hung]
    for fifo in fifos:
        fifo.unlink()
        os.mkfifo(fifo)
    guests, now = [*hung, well], 0.0
    for _ in hung:
        assert looks.look(guests, now)[-1].huge_bytes is None
        now += SMAPS_SECONDS
    looks.look(guests, now)
    wait_for(lambda: asking() == len(hung), 5.0, "answer of the one that is well")
    assert looks.look(guests, now + 1)[-1].huge_bytes == 6 * MIB
    for fifo in fifos:
        os.close(os.open(fifo, os.O_RDWR))


def test_looks_keep_to_their_budget(tmp_path: Path, looks: HugeLooks) -> None:
    add(tmp_path, GUEST)
    looks.look([], 0)
    looks.spent_seconds = 10.0
    assert known(looks, [GUEST], 1) == [None]
    assert known(looks, [GUEST], 2) == [None]
    late = 10.0 / SHARE
    known(looks, [GUEST], late)
    assert known(looks, [GUEST], late + 1) == [6 * MIB]
