"""Memory is given back only with room: on the host without its swap, and in each guest's cgroup."""

from dataclasses import replace

import pytest

from ksmtuned_py.model import Guest, GuestKsm, Memory
from ksmtuned_py.model.room import (
    CGROUP_RESERVE_BYTES,
    RESERVE_BYTES,
    all_lack,
    could_find_bytes,
    guest_lack,
    lack,
    merged_bytes,
    room_bytes,
)
from ksmtuned_py.units import GIB, MIB
from tests.support.snapshots import guest

MEMORY = Memory(total_bytes=16 * GIB, available_bytes=GIB + RESERVE_BYTES, swap_free_bytes=8 * GIB)
PAGES_OF_GIB = GIB // 4096


def merged(pages: int, room: int | None = None) -> Guest:
    return replace(guest(), ksm=GuestKsm(merging_pages=pages), room_bytes=room)


def test_swap_is_no_room_for_what_somebody_wants() -> None:
    assert (room_bytes(MEMORY), could_find_bytes(MEMORY)) == (GIB, 9 * GIB)
    assert lack(GIB, MEMORY) is None
    assert lack(2 * GIB, MEMORY) == "it needs 2 GiB and the host has 1 GiB"


def test_the_reserve_is_never_given_away() -> None:
    assert room_bytes(replace(MEMORY, available_bytes=RESERVE_BYTES - 1)) == 0


def test_a_guest_needs_room_under_its_own_limit() -> None:
    assert guest_lack(MIB, MEMORY, None) is None
    assert guest_lack(MIB, MEMORY, CGROUP_RESERVE_BYTES + MIB) is None
    assert "limit leaves" in str(guest_lack(MIB, MEMORY, CGROUP_RESERVE_BYTES + MIB - 1))
    assert guest_lack(0, MEMORY, 0) is None  # nothing is merged


@pytest.mark.parametrize(
    ("room", "said"),
    [
        (None, None),
        (2 * GIB, None),
        (CGROUP_RESERVE_BYTES, "guest web: it needs 512 MiB and its cgroup's limit leaves 16 MiB"),
    ],
)
def test_one_guest_without_room_is_a_lack_of_the_whole_host(room: int | None, said: str) -> None:
    needs = {merged(PAGES_OF_GIB // 2, room): GIB // 2}
    assert all_lack(GIB // 2, needs, MEMORY) == said


def test_zero_pages_are_merged_too() -> None:
    assert merged_bytes(replace(guest(), ksm=GuestKsm(merging_pages=2, zero_pages=3)), 4096) == 5 * 4096
    assert merged_bytes(guest(), 4096) == 0
