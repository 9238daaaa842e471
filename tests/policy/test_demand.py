"""The record keeps the worst moments and who was at it then, in a bounded space."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.model import Clock, Counters, GuestKsm, Memory, Slice, Snapshot
from ksmtuned_py.policy.demand import MOST_GUESTS, MOST_MOMENTS, STEPS, DemandRecord, limits, moment
from ksmtuned_py.units import GIB, MIB
from tests.support.snapshots import guest, snapshot

PAGES = GIB // 4096
SECONDS_A_DAY = 86_400


def at(seconds: float, available_bytes: int = 10 * GIB, **fields: Any) -> Snapshot:
    return snapshot(at=seconds, available_bytes=available_bytes, **fields)


def test_a_write_to_merged_pages_is_a_rise_of_the_guests_own_memory() -> None:
    merged = replace(guest(), ksm=GuestKsm(merging_pages=PAGES // 4, zero_pages=7))
    broken = replace(guest(), ksm=GuestKsm())
    assert list(moment(at(0, guests=(merged,))).own) == [GIB * 3 // 4]
    assert list(moment(at(0, guests=(broken,))).own) == [GIB]


def test_without_an_account_of_each_what_the_host_saves_counts_by_size() -> None:
    guests = (guest("a", 1, GIB), guest("b", 2, 3 * GIB))
    assert list(moment(at(0, guests=guests, counters=Counters(pages_sharing=PAGES))).own) == [
        3 * GIB // 4,
        9 * GIB // 4,
    ]


def test_what_is_in_swap_is_wanted_and_free_swap_is_room() -> None:
    memory = Memory(total_bytes=16 * GIB, available_bytes=4 * GIB, swap_total_bytes=8 * GIB, swap_free_bytes=5 * GIB)
    now = replace(at(0), memory=memory)
    assert moment(now).demand[""] == 15 * GIB
    assert limits(now)[""] == 24 * GIB - 256 * MIB


def test_the_worst_moment_of_a_step_is_kept_with_what_each_guest_had() -> None:
    record = DemandRecord()
    for seconds, left, size in ((1000, 9, 1), (1010, 3, 2), (1019, 8, 1)):
        record.add(moment(at(seconds, left * GIB, guests=(guest(rss_bytes=size * GIB),))))
    assert [(one.seconds, list(one.own)) for one in record.moments] == [(1010, [2 * GIB])]


def test_a_slice_that_is_full_is_as_bad_as_a_host() -> None:
    record = DemandRecord()
    for left in (3, 1, 2):
        one = replace(guest(), slice=Slice("machine.slice", 8 * GIB, left * GIB))
        record.add(moment(at(left, guests=(one,))))
    [kept] = record.moments
    assert kept.demand["machine.slice"] == 7 * GIB


def test_the_record_stays_small_and_goes_back_for_weeks() -> None:
    record = DemandRecord()
    now = moment(at(0))
    for minute in range(100 * 24 * 60 // 10):
        record.add(now._replace(seconds=minute * 600.0, fullness=float(minute % 144 == 70)))
    assert len(record.moments) <= MOST_MOMENTS
    assert record.span_seconds > 28 * SECONDS_A_DAY
    worst = sum(one.fullness for one in record.moments)
    assert worst == len({one.seconds // SECONDS_A_DAY for one in record.moments if one.fullness})
    assert worst >= 28


def test_only_the_largest_guests_are_kept_one_by_one() -> None:
    guests = tuple(guest(f"vm-{number}", number, number * MIB) for number in range(1, MOST_GUESTS + 10))
    kept = moment(at(0, guests=guests))
    assert len(kept.guests) == MOST_GUESTS
    assert min(kept.own) == 10 * MIB


def test_a_clock_that_is_set_moves_nothing_and_another_boot_begins_anew() -> None:
    record = DemandRecord()
    for boot_seconds, unix_seconds in ((1000, 1000), (2000, 9e9), (3000, 0), (10, 5000)):
        clock = Clock(monotonic_seconds=boot_seconds, unix_seconds=unix_seconds)
        record.add(moment(replace(at(0), clock=clock)))
        assert record.moments[-1].seconds == boot_seconds
    assert [one.seconds for one in record.moments] == [10]


def test_another_boot_has_short_steps_again() -> None:
    record = DemandRecord(step_seconds=STEPS[-1])
    for seconds in (1e6, 60, 120):
        record.add(moment(at(seconds)))
    assert [one.seconds for one in record.moments] == [60, 120]


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 8)), max_size=40))
def test_a_look_is_kept_as_its_moment_would_be(looks: list[tuple[int, int]]) -> None:
    """Also where it lies before the last one, as after a boot."""
    looked, added = DemandRecord(), DemandRecord()
    for seconds, left in looks:
        now = at(seconds, left * GIB)
        looked.look(now)
        added.add(moment(now))
    assert (looked.step_seconds, looked.moments) == (added.step_seconds, added.moments)
