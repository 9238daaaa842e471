"""Applies the admin's rules on whose memory may merge, and with whose. Pure.

Rules fail closed. It may be unknown yet whether a rule holds for a guest (Guest.unknown). A guest that the rule would
keep out of merging is then kept out until that is known.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from ksmtuned_py.config import GuestRule, Guests
from ksmtuned_py.guests.names import is_called
from ksmtuned_py.model import Guest, GuestKey

Wish = tuple[bool | None, str]
"""Whether a guest is to merge, and why; None = as it is."""
NO_RULE = GuestRule()
NAMESPACE = "{namespace}"
WORTH_A_CHANGE = 2.0
"""Another group takes over only when it is so many times larger. A change gives back all merged memory."""


def matches(rule: GuestRule, guest: Guest) -> bool | None:
    """Whether all of a rule's patterns match a guest; None when that is unknown yet.

    The pattern "*" also matches what is unknown. A name that matches stays, because libvirt only adds names.
    """
    found = (
        is_called(guest, rule.name) or (None if "name" in guest.unknown else False),
        _matches(rule.uuid.lower(), guest.uuid),
        _matches(rule.tag, guest.tag, known="tag" not in guest.unknown),
        _matches(rule.cgroup, guest.cgroup, known="cgroup" not in guest.unknown),
        _matches(rule.namespace, guest.namespace, known="namespace" not in guest.unknown),
    )
    return False if False in found else None if None in found else True


def _matches(pattern: str, value: str, *, known: bool = True) -> bool | None:
    if pattern == "*":
        return True
    return fnmatchcase(value, pattern) if known else None


def _for(rule: GuestRule, guest: Guest) -> GuestRule:
    """The rule with the guest's namespace put into its group. For an unknown one that is '?', which no guest has."""
    if NAMESPACE not in rule.group:
        return rule
    namespace = "?" if "namespace" in guest.unknown else guest.namespace
    return rule.model_copy(update={"group": rule.group.replace(NAMESPACE, namespace)})


def possible_rules(guest: Guest, rules: Sequence[GuestRule]) -> tuple[GuestRule, ...]:
    """The rules that may match, and at the end the first that surely does; an empty rule if none does."""
    found = []
    for rule in (*rules, NO_RULE):
        match = matches(rule, guest)
        if match is not False:
            found.append(_for(rule, guest))
        if match and not (NAMESPACE in rule.group and "namespace" in guest.unknown):
            break
    return tuple(found)


def is_undecided(guest: Guest, rules: Sequence[GuestRule]) -> bool:
    """Whether a guest is kept out only because something about it is unknown."""
    possible = possible_rules(guest, rules)
    return len({rule.merge == "no" for rule in possible}) > 1 or len({rule.group for rule in possible}) > 1


def open_questions(guest: Guest, rules: Sequence[GuestRule]) -> list[str]:
    """The unknown facts about a guest that some rule asks for."""
    asked = {name for rule in rules for name in guest.unknown if getattr(rule, name) != "*"}
    asked |= {"namespace" for rule in rules if NAMESPACE in rule.group}
    return [name for name in guest.unknown if name in asked]


def ruled(
    guests: Iterable[Guest], settings: Guests, enrolled: str | None, losing: Mapping[GuestKey, int]
) -> tuple[Guest, ...]:
    """The guests with what the rules want of each.

    `enrolled` is the group that may merge; None when none was chosen yet. `losing` has the losing passes by key.
    """
    return tuple(_ruled(guest, settings, enrolled, losing.get(guest.key, 0)) for guest in guests)


def _ruled(guest: Guest, settings: Guests, enrolled: str | None, losing: int) -> Guest:
    possible = possible_rules(guest, settings.rule)
    groups = {rule.group for rule in possible}
    merge, reason = _together([_wish(rule, settings, enrolled, losing) for rule in possible], groups)
    if merge is False and not reason:
        reason = f"unknown yet whether a rule keeps it out: its {' and '.join(open_questions(guest, settings.rule))}"
    group = possible[-1].group if len(groups) == 1 else ""
    if (group, merge, losing) == ("", None, 0):
        return guest  # most guests are like this, and copying 500 takes 2 ms
    return replace(guest, group=group, merge=merge, merge_reason=reason, losing_passes=losing)


def _together(wishes: Sequence[Wish], groups: set[str]) -> Wish:
    """The wish that is safe while any of these may be the right one. Where they differ, the guest is kept out."""
    if all(merge is False for merge, _ in wishes):
        return wishes[0]
    if len(groups) > 1 or any(merge is False for merge, _ in wishes):
        return False, ""
    return wishes[-1]


def _wish(rule: GuestRule, settings: Guests, enrolled: str | None, losing: int) -> Wish:
    if rule.merge == "no":
        return False, 'a rule says merge = "no"'
    if settings.isolation == "groups" and enrolled is None:
        return False, "of which group the guests may merge is not chosen yet"
    if settings.isolation == "groups" and rule.group != enrolled:
        return False, f"only group {enrolled!r} may merge now, and it is in {rule.group!r}"
    if settings.switch_off_losing and losing >= settings.losing_passes:
        return False, f"it has cost more memory than it saved for {losing} passes"
    if rule.merge == "yes":
        return True, 'a rule says merge = "yes"'
    return None, ""


@dataclass(frozen=True, slots=True)
class Choice:
    """The group that may merge, and the groups among which it was chosen."""

    group: str | None = None
    """The group that may merge; None = none was chosen yet."""
    among: frozenset[str] = frozenset()

    def after(self, guests: Sequence[Guest], settings: Guests) -> "Choice":
        """The choice after one more look at the guests: the admin's group, if there is one.

        Else the group stays as long as it has guests, and no other group becomes much larger. Guests without a group
        are a group of their own. Nothing is chosen while the group of some guest is unknown, because a chosen group
        stays and keeps all others out.

        The first choice has the most profit, or at the start, where nobody has any, the largest size. Later choices go
        by size alone, because guests that are kept out have no profit. Where libvirt has domains, they alone count.
        Nobody else can be switched. Any user's process may be called a guest, and look as large as it likes by mapping
        one page over and over.
        """
        if settings.isolation_group:
            return Choice(settings.isolation_group)
        possible = [{rule.group for rule in possible_rules(guest, settings.rule)} for guest in guests]
        if not guests or any(len(groups) > 1 for groups in possible):
            return self
        members: dict[str, list[Guest]] = {}
        domains = any(guest.has_monitor for guest in guests)
        for guest, (group,) in zip(guests, possible, strict=True):
            if guest.has_monitor or not domains:
                members.setdefault(group, []).append(guest)
        return self._among(members)

    def _among(self, members: Mapping[str, Sequence[Guest]]) -> "Choice":
        among = frozenset(members)
        if self.group is None or self.group not in members:
            return Choice(max(sorted(members), key=lambda group: _worth(members[group])), among)
        largest = max(sorted(members), key=lambda group: _size(members[group]))
        worth = _size(members[largest]) > WORTH_A_CHANGE * _size(members[self.group])
        return Choice(largest if among != self.among and worth else self.group, among)


def _worth(guests: Sequence[Guest]) -> tuple[int, int]:
    return sum(guest.ksm.profit_bytes for guest in guests if guest.ksm), _size(guests)


def _size(guests: Iterable[Guest]) -> int:
    return sum(guest.rss_bytes for guest in guests)
