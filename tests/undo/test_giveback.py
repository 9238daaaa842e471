"""Merged memory is given back in stages, on the model, whose guests stand for processes and libvirt's domains."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ksmtuned_py.errors import NoRoom, NotUnmerged
from ksmtuned_py.model import Counters
from ksmtuned_py.model.room import RESERVE_BYTES, merged_bytes
from ksmtuned_py.undo.giveback import NotSwitched, give_back, give_back_guest, switch_and_wait
from ksmtuned_py.undo.unshare import PORTION_PAGES
from ksmtuned_py.units import GIB, MIB
from tests.support.givingstage import Stage


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    assert all(portions.closed for portions in stage.portions)


def test_all_is_given_back_guest_by_guest_from_outside_and_ksmd_is_stopped(stage: Stage) -> None:
    give_back(stage.ways)
    assert stage.unshared.keys() == {"model-1", "model-2"}
    assert stage.switched == []
    assert stage.host.observe().saved_bytes == 0
    assert stage.host.backend.knobs().run == 2
    assert stage.said == []


@pytest.mark.parametrize("unshares", [True, False])
def test_a_guest_that_cannot_be_unshared_is_emptied_by_its_monitor(stage: Stage, unshares: bool) -> None:
    stage.unshares, stage.unreadable = unshares, ("model-1",)
    give_back(stage.ways)
    assert stage.switched == [("model-1", False)] if unshares else [("model-1", False), ("model-2", False)]
    assert stage.host.observe().saved_bytes == 0


def test_a_guest_that_nobody_can_empty_is_left_to_the_last_stage(stage: Stage) -> None:
    stage.unreadable, stage.failing = ("model-1",), ("model-1",)
    give_back(stage.ways)
    assert any("model-1 is left to the last stage: " in said for said in stage.said)
    assert stage.host.observe().saved_bytes == 0


def test_without_room_nothing_is_given_back(stage: Stage) -> None:
    stage.domains.available_bytes = 0
    merged = stage.host.observe().saved_bytes
    with pytest.raises(NoRoom):
        give_back(stage.ways)
    assert (stage.switched, stage.unshared) == ([], {})
    assert stage.host.observe().saved_bytes == merged
    assert stage.host.backend.knobs().run == 0


def test_it_is_left_off_when_room_runs_out_in_the_middle(stage: Stage) -> None:
    size_bytes = stage.host.observe().guests[0].ksm.merging_pages * 4096  # type: ignore[union-attr] # it has merged
    assert size_bytes > PORTION_PAGES * 4096
    stage.domains.available_bytes = 256 * MIB + size_bytes
    stage.rooms = {"model-1": size_bytes + 16 * MIB}
    with pytest.raises(NoRoom):
        give_back(stage.ways)
    assert stage.unshared == {"model-1": size_bytes // 4096}  # and not the second guest, for which no room is left
    assert any(said.startswith("model-2 stays merged: it needs ") for said in stage.said)


def test_a_guest_whose_limit_has_no_room_stays_merged_and_so_run_2_is_not_written(stage: Stage) -> None:
    stage.rooms["model-1"] = 17 * MIB
    merged = stage.host.observe().saved_bytes
    with pytest.raises(NoRoom, match=r"guest model-1: .*limit leaves 17 MiB"):
        give_back(stage.ways)
    assert stage.unshared.keys() == {"model-2"}
    assert stage.host.observe().saved_bytes == merged  # as the counters have it, until ksmd scans
    assert stage.host.backend.knobs().run == 0


def test_merged_pages_that_only_one_guest_has_left_count_against_its_limit(stage: Stage) -> None:
    stage.alone, stage.rooms["model-2"] = ("model-2",), 17 * MIB
    with pytest.raises(NoRoom, match=r"guest model-2: .*limit leaves 17 MiB"):
        give_back(stage.ways)


def test_merged_pages_that_only_one_guest_has_left_cost_the_host_nothing(stage: Stage) -> None:
    size_bytes = merged_bytes(stage.guest, 4096)
    stage.alone, stage.domains.available_bytes = ("model-2",), RESERVE_BYTES + size_bytes + MIB
    give_back(stage.ways)
    assert stage.host.observe().saved_bytes == 0


def test_a_guest_that_does_not_answer_stays_merged_and_so_run_2_is_not_written(stage: Stage) -> None:
    """run=2 would wait for it, with ksmd's mutex taken, and nobody could write run any more."""
    stage.silent = ("model-1",)
    with pytest.raises(NotUnmerged, match="would wait for guest model-1, which does not answer"):
        give_back(stage.ways)
    assert (set(stage.unshared), stage.switched) == ({"model-2"}, [])
    assert "model-1 stays merged: nothing has moved for 30 s" in stage.said
    assert stage.host.backend.knobs().run == 0


def test_the_last_stage_goes_on_for_as_long_as_it_moves(stage: Stage) -> None:
    stage.domains.pending = iter([number / 100 for number in range(40)])  # 0.8 s
    looks = stage.domains.looks
    give_back(replace(stage.ways, stall_seconds=0.4))
    assert stage.domains.looks == looks + 1  # all guests are asked only once, however long it takes
    assert stage.host.observe().saved_bytes == 0


def test_the_last_stage_ends_when_nothing_moves(stage: Stage) -> None:
    stage.domains.pending = iter([1.0] * 1000)
    with pytest.raises(NotUnmerged, match="nothing has moved for"):
        give_back(replace(stage.ways, stall_seconds=0.1))
    assert stage.host.backend.knobs().run == 0


@pytest.mark.parametrize(("shared", "sharing"), [(256, 0), (0, 256), (128, 128)])
def test_pages_that_only_one_guest_has_left_stay_merged_as_well(stage: Stage, shared: int, sharing: int) -> None:
    stage.domains.left = Counters(pages_shared=shared, pages_sharing=sharing)
    with pytest.raises(NotUnmerged, match="1 MiB stay merged"):
        give_back(stage.ways)


def test_the_last_stage_ends_when_memory_runs_short(stage: Stage) -> None:
    def run_short() -> Iterator[float]:
        yield 1.0
        stage.domains.available_bytes = 0
        yield 2.0

    stage.domains.pending = run_short()
    with pytest.raises(NoRoom):
        give_back(stage.ways)
    assert stage.host.backend.knobs().run == 0


def test_one_guest_needs_room_under_its_own_limit(stage: Stage) -> None:
    stage.rooms["model-1"] = 1
    with pytest.raises(NotSwitched, match="limit leaves"):
        give_back_guest(stage.ways, stage.guest, stage.switch)
    stage.rooms["model-1"] = GIB
    assert give_back_guest(stage.ways, stage.guest, stage.switch) > MIB
    assert stage.switched == [("model-1", False)]
    assert stage.unshared.keys() == {"model-1"}  # unshared first, so that the guest stands still for less time


def test_one_guest_without_a_monitor_gets_its_pages_and_it_is_told_that_they_merge_again(stage: Stage) -> None:
    assert give_back_guest(stage.ways, stage.guest, None) > MIB
    assert (stage.switched, set(stage.unshared)) == ([], {"model-1"})
    assert "ksmd merges it again at its next passes, unless it is stopped" in stage.said[-1]


def test_one_guest_that_can_be_given_nothing_by_any_way(stage: Stage) -> None:
    stage.unreadable = ("model-1",)
    with pytest.raises(NotSwitched, match="cannot be unshared from outside: not permitted"):
        give_back_guest(stage.ways, stage.guest, None)
    give_back_guest(stage.ways, stage.guest, stage.switch)
    assert stage.switched == [("model-1", False)]


def test_a_guest_that_ended_is_not_switched(stage: Stage) -> None:
    with pytest.raises(NotSwitched, match="is gone"):
        give_back_guest(stage.ways, replace(stage.guest, pid=1), stage.switch)


def test_what_the_monitor_refuses_is_an_error(stage: Stage) -> None:
    stage.failing = (stage.guest.name,)
    with pytest.raises(NotSwitched, match=stage.guest.name):
        switch_and_wait(stage.guest, True, stage.switch, 4096, stage.said.append)
