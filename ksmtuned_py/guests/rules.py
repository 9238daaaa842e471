"""The admin's rules: whose memory may merge, and with whose. PURE."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from ksmtuned_py.config import GuestRule, Guests
from ksmtuned_py.model import Guest

Key = tuple[int, int]
NO_RULE = GuestRule()


def matches(rule: GuestRule, guest: Guest) -> bool:
    """Whether all of a rule's patterns match a guest; "*" matches what nobody knows as well."""
    pairs = (
        (rule.name, (guest.name, *guest.aliases)),
        (rule.uuid.lower(), (guest.uuid,)),
        (rule.tag, (guest.tag,)),
        (rule.cgroup, (guest.cgroup,)),
    )
    return all(pattern == "*" or any(fnmatchcase(value, pattern) for value in values) for pattern, values in pairs)


def rule_of(guest: Guest, rules: Sequence[GuestRule]) -> GuestRule:
    """The first rule that matches; one that says nothing when none does."""
    return next((rule for rule in rules if matches(rule, guest)), NO_RULE)


def ruled(guests: Iterable[Guest], settings: Guests, enrolled: str, losing: Mapping[Key, int]) -> tuple[Guest, ...]:
    """The guests with what the rules want of them; `enrolled` is the group that may merge, `losing` passes by key."""
    return tuple(
        _ruled(guest, rule_of(guest, settings.rule), settings, enrolled, losing.get(guest.key, 0)) for guest in guests
    )


def grouped(guests: Iterable[Guest], settings: Guests) -> list[Guest]:
    """The guests with their groups."""
    return [replace(guest, group=rule_of(guest, settings.rule).group) for guest in guests]


def _ruled(guest: Guest, rule: GuestRule, settings: Guests, enrolled: str, losing: int) -> Guest:
    merge, reason = _wish(rule, settings, enrolled, losing)
    if (rule.group, merge, losing) == ("", None, 0):
        return guest  # as the many are: a copy of 500 takes 2 ms
    return replace(guest, group=rule.group, merge=merge, merge_reason=reason, losing_passes=losing)


def _wish(rule: GuestRule, settings: Guests, enrolled: str, losing: int) -> tuple[bool | None, str]:
    if rule.merge == "no":
        return False, 'a rule says merge = "no"'
    if settings.isolation == "groups" and rule.group != enrolled:
        return False, f"only group {enrolled!r} may merge now, and it is in {rule.group!r}"
    if settings.switch_off_losing and losing >= settings.losing_passes:
        return False, f"it has cost more memory than it saved for {losing} passes"
    if rule.merge == "yes":
        return True, 'a rule says merge = "yes"'
    return None, ""


def enrolled_group(guests: Sequence[Guest], settings: Guests, before: str | None) -> str:
    """Which group may merge: the admin's, else the one before while it has guests, else the one with most profit.

    Guests without a group are a group of their own. At the start nobody has profit: then the largest group it is.
    """
    if settings.isolation_group:
        return settings.isolation_group
    groups = {guest.group for guest in guests}
    if before is not None and (before in groups or not groups):
        return before
    return max(sorted(groups), key=lambda group: _worth(guests, group), default="")


def _worth(guests: Iterable[Guest], group: str) -> tuple[int, int]:
    members = [guest for guest in guests if guest.group == group]
    profit = sum(guest.ksm.profit_bytes for guest in members if guest.ksm)
    return profit, sum(guest.rss_bytes for guest in members)
