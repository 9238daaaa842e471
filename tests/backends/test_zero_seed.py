"""The pages of zeros are there from the moment on at which ksmd comes to them first."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ksmtuned_py.backends.zeroseed import ZeroSeed
from ksmtuned_py.model import Knobs, Run, Snapshot
from tests.support.snapshots import guest, snapshot


@pytest.fixture
def seed() -> Iterator[ZeroSeed]:
    found = ZeroSeed()
    yield found
    found.close()


def seen(passes: int, run: Run = Run.MERGE, *, guests: int = 1) -> Snapshot:
    """What a tick sees."""
    counters = replace(snapshot().counters, full_scans=passes)
    return snapshot(knobs=Knobs(run=run), counters=counters, guests=tuple(guest("web") for _ in range(guests)))


def test_before_any_guest_they_are_there_at_once(seed: ZeroSeed) -> None:
    seed.consider(seen(7, Run.STOP, guests=0), wanted=True)
    assert seed.is_held


def test_beside_guests_they_come_when_a_pass_has_just_begun(seed: ZeroSeed) -> None:
    for passes in (7, 7):
        seed.consider(seen(passes), wanted=True)
        assert not seed.is_held
    seed.consider(seen(8), wanted=True)
    assert seed.is_held


def test_what_was_passed_before_a_rest_is_no_new_pass(seed: ZeroSeed) -> None:
    seed.consider(seen(7), wanted=True)
    seed.consider(seen(8, Run.STOP), wanted=True)
    seed.consider(seen(9), wanted=True)
    assert not seed.is_held
    seed.consider(seen(10), wanted=True)
    assert seed.is_held


def test_given_up_they_may_come_again(seed: ZeroSeed) -> None:
    seed.consider(seen(7, Run.STOP, guests=0), wanted=True)
    seed.consider(seen(7), wanted=False)
    assert not seed.is_held
    seed.consider(seen(8), wanted=True)
    assert seed.is_held


def test_without_guests_they_do_not_keep_ksmd_awake_and_are_there_again_with_the_first(seed: ZeroSeed) -> None:
    seed.consider(seen(0, Run.STOP, guests=0), wanted=True)
    for passes in (0, 7):
        seed.consider(seen(passes, guests=0), wanted=True)
        assert not seed.is_held
    seed.consider(seen(7), wanted=True)
    assert seed.is_held
    seed.consider(seen(9), wanted=True)
    assert seed.is_held
