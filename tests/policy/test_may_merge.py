"""Whether a guest may merge has one answer for the whole program, whatever keeps its memory out."""

from dataclasses import replace
from typing import Any

import pytest

from ksmtuned_py.config import Config
from ksmtuned_py.model import Guest, GuestKsm
from ksmtuned_py.policy.guards import guards
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import GIB
from tests.support.snapshots import guest, snapshot

KEPT_OUT: dict[str, dict[str, Any]] = {
    "by a rule": {"merge": False},
    "by a switch of ours": {"switched_off": True},
    "by libvirt": {"obstacles": ("nosharepages",)},
    "in hugetlb pages": {"obstacles": ("hugepages",), "ksm": GuestKsm()},
    "shared with another process": {"obstacles": ("shared",), "ksm": GuestKsm()},
    "pinned by a device": {"obstacles": ("vfio",), "ksm": GuestKsm(mergeable=True)},
    "never asked": {"ksm": GuestKsm(mergeable=False)},
}
OTHERS: dict[str, dict[str, Any]] = {
    "nothing is known": {},
    "the kernel does not say": {"ksm": GuestKsm()},
    "it has asked": {"ksm": GuestKsm(mergeable=True)},
    "a rule says yes": {"merge": True},
}


@pytest.mark.parametrize("fields", KEPT_OUT.values(), ids=KEPT_OUT)
def test_whatever_keeps_it_out(fields: dict[str, Any]) -> None:
    assert not replace(guest(), **fields).may_merge


@pytest.mark.parametrize("fields", OTHERS.values(), ids=OTHERS)
def test_what_is_unknown_counts_as_yes(fields: dict[str, Any]) -> None:
    assert replace(guest(), **fields).may_merge


@pytest.mark.parametrize("fields", KEPT_OUT.values(), ids=KEPT_OUT)
def test_the_memory_of_a_guest_that_is_kept_out_is_no_news(fields: dict[str, Any]) -> None:
    small: Guest = replace(guest("out", 7), **fields)
    before = Trend.begin(Config()).after(snapshot(at=1000, guests=(guest(), small)), Config())
    grown = replace(small, rss_bytes=52 * GIB)
    after = before.after(snapshot(at=1010, guests=(guest(), grown)), Config())
    assert after.news.number == before.news.number


def test_the_guard_counts_those_that_may() -> None:
    seen = snapshot(guests=(guest(), replace(guest("out", 7), merge=False)))
    said = {guard.verdict.rule: guard.verdict for guard in guards(seen, Trend.begin(Config()), Config())}
    assert said["no_guests"].sentence == "1 of 2 guests may merge"
    assert not said["no_guests"].fired
