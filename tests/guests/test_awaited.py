"""Merging waits for guests that are to be kept out, until they are switched off, and not for long."""

from dataclasses import replace
from typing import Any

import pytest

from ksmtuned_py.config import Config
from ksmtuned_py.guests.awaited import ASKING_SECONDS, MOST_SECONDS, Awaited
from ksmtuned_py.model import Decision, Guest, GuestKsm, Mode
from ksmtuned_py.policy import decide
from ksmtuned_py.policy.trend import Trend
from tests.support.snapshots import guest, snapshot

OUT = replace(guest("out", 7), merge=False, libvirt_age_seconds=0.0, ksm=GuestKsm(mergeable=True))


def waits(seen: Guest, after_seconds: float = 0.0) -> bool:
    """Whether merging waits for a guest, so many seconds after it was first to be kept out."""
    awaited = Awaited().after([seen], 100.0).after([seen], 100.0 + after_seconds)
    (found,) = awaited.marked([seen])
    return found.awaits_switch


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"libvirt_age_seconds": None, "unknown": ("tag", "name")}, True),
        ({"ksm": None}, True),
        ({"libvirt_age_seconds": None}, False),  # nobody can switch it
        ({"switched_off": True}, False),
        ({"obstacles": ("hugepages",)}, False),
        ({"merge": None}, False),
        ({"merge": True}, False),
    ],
)
def test_who_is_waited_for(fields: dict[str, Any], expected: bool) -> None:
    assert waits(replace(OUT, **fields)) is expected


def test_it_is_not_for_ever() -> None:
    assert waits(OUT, MOST_SECONDS - 0.1)
    assert not waits(OUT, MOST_SECONDS)
    silent = replace(OUT, ksm=GuestKsm(mergeable=False))
    assert waits(silent, ASKING_SECONDS - 0.1)
    assert not waits(silent, ASKING_SECONDS)


def test_a_guest_that_is_wanted_out_again_is_waited_for_again() -> None:
    free = replace(OUT, merge=None)
    awaited = Awaited().after([OUT], 0.0).after([free], 50.0).after([OUT], 100.0)
    assert awaited.marked([OUT])[0].awaits_switch


def decided(*guests: Guest, backend: str = "kernel") -> Decision:
    """The decision of the default policy about new guests."""
    seen = snapshot(guests=guests, backend=backend)
    return decide(seen, Trend.begin(Config()).after(seen, Config()), Config())


def test_no_pass_goes_over_guests_that_wait_to_be_switched_off() -> None:
    waiting = replace(OUT, awaits_switch=True)
    decision = decided(guest(), waiting)
    assert (decision.mode, decision.rule, decision.knobs.run) == (Mode.OFF, "unswitched", 0)
    assert decision.reason == "off: out is switched off first, as a rule wants it"
    assert decision.next_tick_seconds == Config().daemon.tick_seconds
    assert decided(guest(), OUT).mode is Mode.BOOST
    assert decided(guest(), waiting, backend="scan").rule != "unswitched"  # scanning heeds rules without a switch
