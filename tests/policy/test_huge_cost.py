"""What merging costs in huge pages is counted while ksmd runs, and set against what it has gained."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.model import Counters, Knobs, Run, Snapshot, Vmstat
from ksmtuned_py.policy.hugepages import HugeCost
from ksmtuned_py.units import GIB, MIB
from tests.support.snapshots import snapshot


def seen(*, splits: int | None = 0, saved_bytes: int = 0, run: Run = Run.MERGE) -> Snapshot:
    """A look with these figures."""
    return snapshot(
        vmstat=Vmstat(thp_split_page=splits),
        counters=Counters(pages_sharing=saved_bytes // 4096),
        knobs=Knobs(run=run, pages_to_scan=100, sleep_millisecs=20),
    )


def over(*looks: Snapshot, freed_bytes: int = 0) -> HugeCost:
    """The cost after these looks."""
    cost, before = HugeCost(), None
    for now in looks:
        cost, before = cost.after(before, now, freed_bytes), now
    return cost


def test_splits_are_set_against_what_was_gained() -> None:
    cost = over(seen(splits=100, saved_bytes=GIB), seen(splits=612, saved_bytes=2 * GIB), freed_bytes=GIB)
    assert (cost.split, cost.gained_bytes, cost.split_per_gib) == (512, 2 * GIB, 256)


def test_nothing_gained_has_no_price() -> None:
    assert over(seen(), seen(splits=5)).split_per_gib is None
    assert over(seen(saved_bytes=GIB), seen(splits=5)).split_per_gib is None


def test_splits_while_ksmd_rests_are_not_merging() -> None:
    off = Run.STOP
    assert over(seen(run=off), seen(splits=7, run=off), seen(splits=9), seen(splits=12, run=off)).split == 5


def test_a_kernel_that_does_not_count_splits_has_none() -> None:
    assert over(seen(splits=None), seen(splits=None, saved_bytes=MIB)).split == 0


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.sampled_from(Run)), max_size=8))
def test_the_cost_never_falls_and_the_gain_is_that_of_the_last_look(looks: list[tuple[int, int, Run]]) -> None:
    cost, before = HugeCost(), None
    for splits, saved, run in looks:
        now = seen(splits=splits, saved_bytes=saved * MIB, run=run)
        after = cost.after(before, now, 0)
        assert after.split >= cost.split
        assert after.gained_bytes == (saved - looks[0][1]) * MIB
        cost, before = after, now


def test_what_khugepaged_makes_while_ksmd_runs_is_told() -> None:
    def made(collapses: int, run: Run = Run.MERGE) -> Snapshot:
        return replace(seen(run=run), vmstat=Vmstat(thp_collapse_alloc=collapses))

    rest = Run.STOP
    assert over(made(3), made(8), made(8, rest), made(20, rest), made(21)).collapsed == 6
