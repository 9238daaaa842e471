"""The admin's rules: whose memory may merge, and with whose. PURE.

They fail closed: where it is not known yet whether a rule holds for a guest (Guest.unknown), and the guest would be
kept out of merging if it did, it is kept out until that is known.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from ksmtuned_py.config import GuestRule, Guests
from ksmtuned_py.guests.names import is_called
from ksmtuned_py.model import Guest

Key = tuple[int, int]
Wish = tuple[bool | None, str]
"""Whether a guest is to merge (None: as it is), and why."""
NO_RULE = GuestRule()
WORTH_A_CHANGE = 2.0
"""Another group has to be so much larger than the one that merges: a change gives back all that was merged."""


def matches(rule: GuestRule, guest: Guest) -> bool | None:
    """Whether all of a rule's patterns match a guest; None when nobody knows yet, which "*" does not mind.

    A name that matches does so for good: what libvirt may add is another name.
    """
    found = (
        is_called(guest, rule.name) or (None if "name" in guest.unknown else False),
        _matches(rule.uuid.lower(), guest.uuid),
        _matches(rule.tag, guest.tag, known="tag" not in guest.unknown),
        _matches(rule.cgroup, guest.cgroup, known="cgroup" not in guest.unknown),
    )
    return False if False in found else None if None in found else True


def _matches(pattern: str, value: str, *, known: bool = True) -> bool | None:
    if pattern == "*":
        return True
    return fnmatchcase(value, pattern) if known else None


def possible_rules(guest: Guest, rules: Sequence[GuestRule]) -> tuple[GuestRule, ...]:
    """The first rule that matches, behind those that may; the last is one that says nothing when none does."""
    found = []
    for rule in (*rules, NO_RULE):
        match = matches(rule, guest)
        if match is not False:
            found.append(rule)
        if match:
            break
    return tuple(found)


def is_undecided(guest: Guest, rules: Sequence[GuestRule]) -> bool:
    """Whether it is kept out for no other reason than that something of it is unknown."""
    possible = possible_rules(guest, rules)
    return len({rule.merge == "no" for rule in possible}) > 1 or len({rule.group for rule in possible}) > 1


def open_questions(guest: Guest, rules: Iterable[GuestRule]) -> list[str]:
    """What is unknown of it, and is asked for by some rule."""
    return [name for name in guest.unknown if any(getattr(rule, name) != "*" for rule in rules)]


def ruled(
    guests: Iterable[Guest], settings: Guests, enrolled: str | None, losing: Mapping[Key, int]
) -> tuple[Guest, ...]:
    """The guests with what the rules want of them.

    `enrolled` is the group that may merge (None: none was chosen yet), `losing` passes by key.
    """
    return tuple(_ruled(guest, settings, enrolled, losing.get(guest.key, 0)) for guest in guests)


def _ruled(guest: Guest, settings: Guests, enrolled: str | None, losing: int) -> Guest:
    possible = possible_rules(guest, settings.rule)
    groups = {rule.group for rule in possible}
    merge, reason = _together([_wish(rule, settings, enrolled, losing) for rule in possible], groups)
    if merge is False and not reason:
        reason = f"unknown yet whether a rule keeps it out: its {' and '.join(open_questions(guest, possible))}"
    group = possible[-1].group if len(groups) == 1 else ""
    if (group, merge, losing) == ("", None, 0):
        return guest  # as the many are: a copy of 500 takes 2 ms
    return replace(guest, group=group, merge=merge, merge_reason=reason, losing_passes=losing)


def _together(wishes: Sequence[Wish], groups: set[str]) -> Wish:
    """What holds while any of the wishes may be the right one; a no without a reason where that is open."""
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
    """The group that may merge, and among which it was chosen."""

    group: str | None = None
    """None = none was chosen yet."""
    among: frozenset[str] = frozenset()

    def after(self, guests: Sequence[Guest], settings: Guests) -> "Choice":
        """The admin's group; else the one before, as long as it has guests and no other becomes much larger.

        Guests without a group are a group of their own. Nothing is chosen while it is unknown in which group some
        guest is: once chosen, a group would stay, and keep all others out. The first choice is the one with the most
        profit, or at the start, where nobody has any, the largest; later ones go by size alone, for whoever is kept
        out has no profit. Where there are domains of libvirt's, they alone count: nobody else can be switched, and any
        user's process may be called a guest, and be as large as it likes by mapping one page over and over.
        """
        if settings.isolation_group:
            return Choice(settings.isolation_group)
        possible = [{rule.group for rule in possible_rules(guest, settings.rule)} for guest in guests]
        if not guests or any(len(groups) > 1 for groups in possible):
            return self
        members: dict[str, list[Guest]] = {}
        domains = any(guest.libvirt_age_seconds is not None for guest in guests)
        for guest, (group,) in zip(guests, possible, strict=True):
            if guest.libvirt_age_seconds is not None or not domains:
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
