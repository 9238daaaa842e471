"""The rules decide about guests, groups and losing guests."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.config import GuestRule, Guests
from ksmtuned_py.guests.losses import Losses
from ksmtuned_py.guests.rules import Choice, is_undecided, matches, possible_rules, ruled
from ksmtuned_py.model import Guest, GuestKsm
from tests.support.snapshots import guest

WEB = replace(guest("web-1", 10), uuid="u-1", tag="gold", cgroup="/machine.slice/machine-qemu-1-web.scope")


def settings(*rules: GuestRule, **keys: object) -> Guests:
    """The [guests] section with these rules and keys."""
    return Guests.model_validate({"rule": [rule.model_dump() for rule in rules], **keys})


def account(guest: Guest, profit_bytes: int) -> Guest:
    """The guest with this profit or loss."""
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
    assert [rule.merge for rule in possible_rules(WEB, rules)] == ["no"]
    assert [rule.merge for rule in possible_rules(WEB, ())] == ["keep"]


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


ISOLATED = settings(
    *(GuestRule(name=f"{group}*", group=group) for group in "ab"),
    GuestRule(tag="gold", group="gold"),
    isolation="groups",
)


def chosen(*guests: Guest, before: Choice = Choice()) -> Choice:  # noqa: B008 - frozen
    """The choice after one more look."""
    return before.after(guests, ISOLATED)


def test_the_group_with_most_profit_is_chosen_and_stays() -> None:
    rich, poor = account(guest("a", 1), 1000), account(guest("b", 2), 10)
    first = chosen(poor, rich)
    assert first.group == "a"
    grown = replace(poor, rss_bytes=2**40)
    assert chosen(grown, rich, before=first) == first
    assert chosen(poor, before=first).group == "b"
    assert chosen(before=first) == first
    assert Choice("b").after([rich], settings(isolation="groups", isolation_group="c")).group == "c"


def test_without_any_profit_the_largest_group_is_chosen() -> None:
    small, large = guest("a", 1), replace(guest("b", 2), rss_bytes=2**40)
    assert chosen(small, large).group == "b"
    assert chosen().group is None


def test_when_there_are_other_groups_a_much_larger_one_takes_its_place() -> None:
    one, other = guest("a", 1), guest("b", 2)
    first = chosen(one)
    as_large = chosen(one, other, before=first)
    assert as_large.group == "a"
    several = [guest("b", number) for number in range(2, 5)]
    assert chosen(one, *several, before=first).group == "b"
    assert chosen(one, *several, before=as_large) == as_large  # growth alone is no reason to give memory back


def test_where_there_are_domains_nobody_else_has_a_say_in_which_group_merges() -> None:
    """Any user's process can make its resident size grow by mapping one page over and over."""
    domains = [replace(guest("a", number), libvirt_age_seconds=1.0) for number in (1, 2)]
    first = chosen(*domains)
    huge = [replace(guest(name, 9), rss_bytes=2**50) for name in ("b", "x")]
    assert first.group == "a"
    for one in huge:
        assert chosen(*domains, one, before=first).group == "a"
        assert chosen(one).group == ("b" if one.name == "b" else "")  # without domains there is nobody else


def test_no_group_is_chosen_before_libvirt_has_told_of_all() -> None:
    tagged = [replace(guest(f"vm-{number}", number), uuid=f"u-{number}", unknown=("tag",)) for number in range(1, 21)]
    java = guest("java", 99)
    before = chosen(*tagged, java)
    assert before.group is None
    assert {each.merge for each in ruled([*tagged, java], ISOLATED, before.group, {})} == {False}
    told = [replace(each, tag="gold", unknown=()) for each in tagged]
    after = chosen(*told, java, before=before)
    assert after.group == "gold"
    found = {each.name: each.merge for each in ruled([*told, java], ISOLATED, after.group, {})}
    assert found == {**{each.name: None for each in told}, "java": False}


UNTOLD = replace(WEB, tag="", unknown=("tag", "name"))


@pytest.mark.parametrize(
    ("rule", "matched"),
    [
        (GuestRule(tag="gold"), None),
        (GuestRule(tag=""), None),
        (GuestRule(name="db*"), None),  # another name that libvirt has for it
        (GuestRule(name="web*"), True),
        (GuestRule(name="web*", tag="gold"), None),
        (GuestRule(uuid="u-9", tag="gold"), False),
        (GuestRule(), True),
    ],
)
def test_a_rule_that_asks_for_what_is_unknown_is_open(rule: GuestRule, matched: bool | None) -> None:
    assert matches(rule, UNTOLD) is matched


def test_a_cgroup_that_is_unknown_matches_nothing_and_excludes_nothing() -> None:
    unplaced = replace(WEB, cgroup="", unknown=("cgroup",))
    assert matches(GuestRule(cgroup="/machine.slice/*"), unplaced) is None
    assert matches(GuestRule(cgroup="/machine.slice/*"), replace(unplaced, unknown=())) is False


@pytest.mark.parametrize(
    ("rules", "merge"),
    [
        ((GuestRule(tag="gold", merge="no"),), False),
        ((GuestRule(tag="gold", merge="yes"), GuestRule(merge="no")), False),
        ((GuestRule(tag="gold", group="a"), GuestRule(name="*", group="b")), False),
        ((GuestRule(name="web*", merge="yes"), GuestRule(tag="gold", merge="no")), True),
        ((GuestRule(tag="gold", merge="yes"),), None),
        ((), None),
    ],
)
def test_what_is_unknown_keeps_it_out_where_it_could_be_a_no(rules: tuple[GuestRule, ...], merge: bool | None) -> None:
    (found,) = ruled([UNTOLD], settings(*rules), None, {})
    assert found.merge is merge
    assert is_undecided(UNTOLD, rules) == (merge is False)
    if merge is False:
        assert found.merge_reason == "unknown yet whether a rule keeps it out: its tag"


names = st.sampled_from(["a", "b", ""])


@given(st.lists(names, max_size=6), st.one_of(st.none(), names))
def test_at_most_one_group_may_merge(groups: list[str], before: str | None) -> None:
    rules = [GuestRule(name=f"{group}-*", group=group, merge="yes") for group in ("a", "b")]
    isolated = settings(*rules, isolation="groups")
    guests = [guest(f"{group}-{number}", number + 1) for number, group in enumerate(groups)]
    choice = Choice(before).after(guests, isolated)
    merging = {each.group for each in ruled(guests, isolated, choice.group, {}) if each.merge is not False}
    assert len(merging) <= 1


fields = st.sampled_from(["*", "x", "y"])
some_rules = st.lists(
    st.builds(
        GuestRule, name=fields, tag=fields, cgroup=fields, merge=st.sampled_from(["yes", "no", "keep"]), group=names
    ),
    max_size=4,
)


@given(some_rules, fields, fields, st.sampled_from(["off", "groups"]), st.sets(st.sampled_from(["tag", "cgroup"])))
def test_whoever_is_kept_out_once_all_is_known_is_kept_out_before(
    rules: list[GuestRule], tag: str, cgroup: str, isolation: str, unknown: set[str]
) -> None:
    asked = settings(*rules, isolation=isolation)
    told = replace(guest("x"), tag=tag, cgroup=cgroup)
    hidden: dict[str, Any] = {**dict.fromkeys(unknown, ""), "unknown": tuple(sorted(unknown))}
    untold = replace(told, **hidden)
    for enrolled in ("a", None):
        (later,) = ruled([told], asked, enrolled, {})
        (now,) = ruled([untold], asked, enrolled, {})
        assert now.merge is False or later.merge is not False


def test_losses_are_counted_once_a_pass_and_forgotten_with_a_profit() -> None:
    loser, winner = account(guest("a", 1), -1), account(guest("b", 2), 1)
    both = {loser.key, winner.key}
    losses = Losses().after([loser, winner], both, 1).after([loser, winner], both, 1).after([loser, winner], both, 2)
    assert losses.passes == {loser.key: 2}
    assert losses.after([account(loser, 1)], both, 3).passes == {}
    assert losses.after([], both, 3).passes == {}


def test_an_account_that_was_not_read_anew_is_not_counted_again() -> None:
    loser = account(guest("a", 1), -1)
    losses = Losses().after([loser], {loser.key}, 1)
    for passes in range(2, 6):
        losses = losses.after([loser], (), passes)
    assert losses.passes == {loser.key: 1}
    assert losses.after([loser], {loser.key}, 5).passes == {loser.key: 2}


def test_a_guest_that_was_switched_off_stays_counted() -> None:
    loser = account(guest("a", 1), -1)
    losses = Losses().after([loser], {loser.key}, 1).after([loser], {loser.key}, 2)
    off = replace(account(guest("a", 1), 0), switched_off=True)
    assert losses.after([off], {loser.key}, 3).after([off], {loser.key}, 4).passes == {loser.key: 2}


def test_a_losing_guest_is_switched_off_only_where_the_admin_allows_it() -> None:
    loser = guest("a", 1)
    assert ruled([loser], settings(losing_passes=2), "", {loser.key: 2})[0].merge is None
    allowed = settings(losing_passes=2, switch_off_losing=True)
    assert ruled([loser], allowed, "", {loser.key: 1})[0].merge is None
    assert ruled([loser], allowed, "", {loser.key: 2})[0].merge is False
