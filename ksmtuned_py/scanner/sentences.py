"""Tells what is wrong with guests, in as few sentences as possible. Pure."""

from collections.abc import Iterable

from ksmtuned_py.scanner.channel import Message

MOST_SENTENCES = 20
_MOST_NAMES = 3


def guest_sentences(guests: Iterable[Message]) -> list[str]:
    """Returns sentences that name guests with the same reason together; counts the rest when reasons are too many."""
    names: dict[str, list[str]] = {}
    for guest in guests:
        for reason in (guest["rest"], guest["refusal"]):
            if reason:
                names.setdefault(reason, []).append(guest["name"])
    found = [f"{_joined(who)}: {reason}" for reason, who in names.items()]
    if len(found) <= MOST_SENTENCES:
        return found
    told, left_out = found[: MOST_SENTENCES - 1], list(names.values())[MOST_SENTENCES - 1 :]
    return [*told, f"{sum(map(len, left_out))} more guests are left alone, or a part of them: ksmtuned-py guests"]


def _joined(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
