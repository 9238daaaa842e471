"""The rules for guests, the group that merges, and the guests that lose: pure."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.config import GuestRule, Guests
from ksmtuned_py.guests.losses import Losses
from ksmtuned_py.guests.rules import enrolled_group, matches, rule_of, ruled
from ksmtuned_py.model import Guest, GuestKsm
from tests.support.snapshots import guest

WEB = replace(guest("web-1", 10), uuid="u-1", tag="gold", cgroup="/machine.slice/machine-qemu-1-web.scope")


def settings(*rules: GuestRule, **keys: object) -> Guests:
    """The [guests] section."""
    return Guests.model_validate({"rule": [rule.model_dump() for rule in rules], **keys})


def account(guest: Guest, profit_bytes: int) -> Guest:
    """With a profit or a loss."""
    return replace(guest, ksm=GuestKsm(rmap_items=100, merging_pages=1, profit_bytes=profit_bytes))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (GuestRule(), True),
        (GuestRule(name="web-*"), True),
        (GuestRule(name="web-*", tag="silver"), False),
        (GuestRule(uuid="u-?", tag="gold"), True),
        (GuestRule(cgroup="/machine.slice/*"), True),
        (GuestRule(cgroup="/system.slice/*"), False),
    ],
)
def test_all_patterns_of_a_rule_have_to_match(rule: GuestRule, expected: bool) -> None:
    assert matches(rule, WEB) == expected


def test_the_first_rule_that_matches_holds() -> None:
    rules = (GuestRule(name="db*", merge="yes"), GuestRule(name="web*", merge="no"), GuestRule(merge="yes"))
    assert rule_of(WEB, rules).merge == "no"
    assert rule_of(WEB, ()).merge == "keep"


def test_what_the_rules_want_has_a_reason() -> None:
    (found,) = ruled([WEB], settings(GuestRule(name="web*", merge="no", group="a")), "", {})
    assert (found.merge, found.group) == (False, "a")
    assert 'merge = "no"' in found.merge_reason
    (found,) = ruled([WEB], settings(), "", {})
    assert (found.merge, found.merge_reason) == (None, "")


def test_with_isolation_only_the_enrolled_group_merges() -> None:
    rules = (GuestRule(name="web*", group="a"), GuestRule(name="db*", group="b", merge="yes"))
    isolated = settings(*rules, isolation="groups")
    wishes = {each.name: each.merge for each in ruled([WEB, guest("db", 11), guest("mail", 12)], isolated, "a", {})}
    assert wishes == {"web-1": None, "db": False, "mail": False}


def test_the_group_with_most_profit_is_enrolled_and_stays() -> None:
    isolated = settings(isolation="groups")
    rich = replace(account(guest("a", 1), 1000), group="a")
    poor = replace(account(guest("b", 2), 10), group="b")
    assert enrolled_group([poor, rich], isolated, None) == "a"
    assert enrolled_group([poor, rich], isolated, "b") == "b"
    assert enrolled_group([rich], isolated, "b") == "a"
    assert enrolled_group([], isolated, "b") == "b"
    assert enrolled_group([poor, rich], settings(isolation="groups", isolation_group="c"), "b") == "c"


def test_without_any_profit_the_largest_group_is_enrolled() -> None:
    small, large = replace(guest("a", 1), group="a"), replace(guest("b", 2), group="b", rss_bytes=2**40)
    assert enrolled_group([small, large], settings(isolation="groups"), None) == "b"


names = st.sampled_from(["a", "b", ""])


@given(st.lists(names, max_size=6), st.one_of(st.none(), names))
def test_at_most_one_group_may_merge(groups: list[str], before: str | None) -> None:
    rules = [GuestRule(name=f"{group}-*", group=group, merge="yes") for group in ("a", "b")]
    isolated = settings(*rules, isolation="groups")
    guests = [guest(f"{group}-{number}", number + 1) for number, group in enumerate(groups)]
    enrolled = enrolled_group([replace(one, group=rule_of(one, rules).group) for one in guests], isolated, before)
    merging = {each.group for each in ruled(guests, isolated, enrolled, {}) if each.merge is not False}
    assert len(merging) <= 1


def test_losses_are_counted_once_a_pass_and_forgotten_with_a_profit() -> None:
    loser, winner = account(guest("a", 1), -1), account(guest("b", 2), 1)
    losses = Losses().after([loser, winner], 1).after([loser, winner], 1).after([loser, winner], 2)
    assert losses.passes == {loser.key: 2}
    assert losses.after([account(loser, 1)], 3).passes == {}
    assert losses.after([], 3).passes == {}


def test_a_guest_that_was_switched_off_stays_counted() -> None:
    loser = account(guest("a", 1), -1)
    losses = Losses().after([loser], 1).after([loser], 2)
    off = replace(account(guest("a", 1), 0), switched_off=True)
    assert losses.after([off], 3).after([off], 4).passes == {loser.key: 2}


def test_a_losing_guest_is_switched_off_only_where_the_admin_allows_it() -> None:
    loser = guest("a", 1)
    assert ruled([loser], settings(losing_passes=2), "", {loser.key: 2})[0].merge is None
    allowed = settings(losing_passes=2, switch_off_losing=True)
    assert ruled([loser], allowed, "", {loser.key: 1})[0].merge is None
    assert ruled([loser], allowed, "", {loser.key: 2})[0].merge is False
