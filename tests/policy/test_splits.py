"""Memory from split huge pages is counted once, and only when all three witnesses agree."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.config import Config
from ksmtuned_py.model import Counters, Memory, Snapshot, Vmstat
from ksmtuned_py.policy import decide
from ksmtuned_py.policy.splits import Splits
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import GIB, MIB
from tests.support.snapshots import guest, snapshot

HUGE_MIB = 2


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The figures of one snapshot, in MiB."""

    resident: int = 1000
    available: int = 5000
    splits: int | None = 0
    merged: int = 0
    zeroed: int = 0
    swapped: int = 0

    def at(self, seconds: float = 0, full_scans: int = 0, cpu_seconds: float = 0) -> Snapshot:
        """The figures as a snapshot."""
        return snapshot(
            at=seconds,
            counters=Counters(
                full_scans=full_scans,
                pages_sharing=self.merged * MIB // 4096,
                ksm_zero_pages=self.zeroed * MIB // 4096,
                pages_unshared=1000,
            ),
            memory=Memory(
                total_bytes=16 * GIB,
                available_bytes=self.available * MIB,
                swap_total_bytes=8 * GIB,
                swap_free_bytes=8 * GIB - self.swapped * MIB,
            ),
            vmstat=Vmstat(thp_split_page=self.splits),
            guests=(guest(rss_bytes=self.resident * MIB),),
            cpu_seconds=cpu_seconds,
        )


def freed_mib(*looks: Seen, splits: Splits = Splits()) -> float:  # noqa: B008 - frozen
    for seen in looks:
        splits = splits.after(seen.at(), boosting=True)
    return splits.freed_bytes / MIB


BEFORE = Seen()


def test_all_witnesses_agree_on_what_a_split_has_freed() -> None:
    assert freed_mib(BEFORE, Seen(resident=900, available=5100, splits=300)) == 100


def test_what_one_of_them_does_not_say_is_not_counted() -> None:
    assert freed_mib(BEFORE, Seen(resident=1000, available=5100, splits=300)) == 0  # another program ended
    assert freed_mib(BEFORE, Seen(resident=900, available=5000, splits=300)) == 0  # another program took it
    assert freed_mib(BEFORE, Seen(resident=900, available=5100)) == 0  # the guest's balloon was inflated
    assert freed_mib(BEFORE, Seen(resident=900, available=5100, splits=None)) == 0
    assert freed_mib(BEFORE, Seen(resident=900, available=5100, splits=10)) == 10 * HUGE_MIB


def test_what_the_counters_say_is_not_counted_twice() -> None:
    assert freed_mib(BEFORE, Seen(resident=1000, available=5100, splits=300, merged=100)) == 0
    assert freed_mib(BEFORE, Seen(resident=900, available=5100, splits=300, zeroed=100)) == 0
    assert freed_mib(BEFORE, Seen(resident=900, available=5150, splits=300, merged=50)) == 100


def test_what_went_to_swap_is_not_counted() -> None:
    assert freed_mib(BEFORE, Seen(resident=900, available=5100, splits=300, swapped=100)) == 0


def test_a_guest_that_ended_has_freed_nothing() -> None:
    ended = replace(Seen(available=6000, splits=3000).at(), guests=())
    splits = Splits().after(BEFORE.at(), boosting=True).after(ended, boosting=True)
    assert splits.freed_bytes == 0


def test_a_guest_that_grew_meanwhile_is_judged_by_its_largest() -> None:
    grown = Seen(resident=2000, available=4000)
    assert freed_mib(BEFORE, grown, Seen(resident=1900, available=4100, splits=300)) == 100


def test_a_guest_that_shrinks_again_and_again_counts_once() -> None:
    small, large = Seen(resident=900, available=5100, splits=300), Seen(resident=1000, available=5000, splits=300)
    assert freed_mib(BEFORE, small, large, replace(small, splits=600), large, replace(small, splits=900)) == 100


def test_outside_of_boosts_nobody_is_heard() -> None:
    splits = Splits().after(BEFORE.at(), boosting=False)
    splits = splits.after(Seen(resident=900, available=5100, splits=300).at(), boosting=False)
    assert splits == Splits()
    both = splits.after(BEFORE.at(), boosting=True).after(Seen(resident=900, available=5100).at(), boosting=False)
    assert both.freed_bytes == 0


LOOKS = st.lists(
    st.builds(
        Seen,
        resident=st.integers(0, 3000),
        available=st.integers(0, 9000),
        splits=st.integers(0, 2000),
        merged=st.integers(0, 1000),
        zeroed=st.integers(0, 1000),
        swapped=st.integers(0, 8000),
    ),
    min_size=1,
    max_size=8,
)


@given(LOOKS)
def test_it_never_falls_and_no_witness_says_less(looks: Sequence[Seen]) -> None:
    counts = sorted(seen.splits or 0 for seen in looks)
    ordered = [replace(seen, splits=count) for seen, count in zip(looks, counts, strict=True)]
    splits, before = Splits(), 0
    for seen in ordered:
        splits = splits.after(seen.at(), boosting=True)
        assert splits.freed_bytes >= before
        before = splits.freed_bytes
    first, last = ordered[0], ordered[-1]
    assert before <= ((last.splits or 0) - (first.splits or 0)) * HUGE_MIB * MIB
    assert before <= (max(seen.resident for seen in ordered) - min(seen.resident for seen in ordered)) * MIB
    net = [seen.available - seen.merged - seen.zeroed for seen in ordered]
    assert before <= (max(net) - min(net)) * MIB


@given(st.lists(st.integers(0, 9000), min_size=2, max_size=8))
def test_available_memory_alone_however_noisy_is_no_gain(available: list[int]) -> None:
    assert freed_mib(*(Seen(available=each, splits=count * 500) for count, each in enumerate(available))) == 0


def after(*looks: Snapshot) -> Trend:
    trend = Trend.begin(Config())
    for each in looks:
        trend = trend.after(each, Config())
    return trend


def test_a_pass_of_a_boost_gains_it_and_is_told_to_have() -> None:
    freed = Seen(resident=500, available=5500, splits=900)
    began = (BEFORE.at(0), BEFORE.at(1), BEFORE.at(2, full_scans=1))
    paid = after(*began, freed.at(3, full_scans=4, cpu_seconds=1))
    assert paid.passes.last is not None
    assert (paid.passes.last.gained_bytes, paid.passes.last.freed_bytes) == (500 * MIB, 500 * MIB)
    assert paid.boosting
    verdicts = decide(freed.at(3), paid, Config()).verdicts
    assert any("500 MiB of it from huge pages that were split" in verdict.sentence for verdict in verdicts)
    assert not after(*began, BEFORE.at(3, full_scans=4, cpu_seconds=1)).boosting


def test_a_pass_that_gains_it_is_no_loss() -> None:
    def losing(seen: Seen, seconds: float, full_scans: int) -> Snapshot:
        look = seen.at(seconds, full_scans)
        return replace(look, counters=replace(look.counters, general_profit=-MIB))

    freed = Seen(resident=500, available=5500, splits=900)
    assert after(losing(BEFORE, 0, 0), losing(BEFORE, 1, 0), losing(BEFORE, 2, 1)).passes.losing == 1
    assert after(losing(BEFORE, 0, 0), losing(BEFORE, 1, 0), losing(freed, 2, 1)).passes.losing == 0
