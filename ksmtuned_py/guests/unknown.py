"""Tells which facts about a guest are unknown yet, so that no rule which asks for them can be judged. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from ksmtuned_py.guests.domains import View
from ksmtuned_py.guests.evidence import in_libvirts
from ksmtuned_py.model import Guest

TOLD_WITHIN_SECONDS = 5.0
"""libvirt lists a domain long before its process has run for so long. What it does not list then is no domain."""


def unknown_of(guest: Guest, view: View | None, seen_seconds: float, *, libvirt_is_used: bool) -> tuple[str, ...]:
    """The facts that libvirt has yet to tell of a guest: 'tag', 'name'. `seen_seconds` is monotonic.

    libvirt's QEMU always has a UUID on its command line. A guest without a UUID has no tag, and no name but its own.
    """
    if guest.kind != "qemu" or not guest.uuid:
        return ()
    if view is None:
        return () if libvirt_is_used else ("tag",)
    if not view.expected and not in_libvirts(guest.cgroup):
        return ()
    if guest.uuid in view.domains:
        return ()
    told = view.at_seconds is not None and view.at_seconds >= seen_seconds + TOLD_WITHIN_SECONDS
    return () if told and guest.uuid not in view.unread else ("tag", "name")


def undecided_sentence(undecided: Sequence[Guest], questions: Iterable[str], why: Mapping[str, str]) -> str:
    """The sentence that names the guests kept out because these questions are open, and says why they are."""
    reasons = "; ".join(dict.fromkeys(why[name] for name in questions))
    count = f"{len(undecided)} guests are" if len(undecided) > 1 else f"guest {undecided[0].name} is"
    return f"{count} kept out of merging, for it is unknown whether a rule wants that: {reasons}"
