"""Chooses which processes are scanned, and in which groups: from the configuration, and from what a person names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.guests.names import goes_by, is_called
from ksmtuned_py.model import Guest
from ksmtuned_py.scanner.target import Target


@dataclass(eq=False)
class NoSuchGuest(KsmtunedError):
    """Raised when a name is neither that of a guest nor that of a process."""

    name: str
    template = "{name}: found no such guest, nor a process of that number"
    hint_template = "ksmtuned-py guests lists them; any process can be named by its PID"


def target_of(guest: Guest, settings: Scan) -> Target:
    """Returns the guest as a target with its group and permissions; a rule's group wins over the group by name.

    Names that libvirt has yet to tell may put it into an earlier group. Until then it is left alone.
    """
    by_name = next((pattern for pattern in settings.groups if is_called(guest, pattern)), "")
    is_named = not settings.groups or guest.group or "name" not in guest.unknown or by_name == settings.groups[0]
    return Target(
        pid=guest.pid,
        start_ticks=guest.start_ticks,
        name=guest.name,
        group=guest.group or by_name,
        remap=any(is_called(guest, pattern) for pattern in settings.remap_guests),
        merge=bool(is_named) and not guest.kept_out,
    )


def targets(words: Sequence[str], guests: Iterable[Guest], settings: Scan, door: Door) -> list[Target]:
    """Returns the guests and processes that these words and PIDs name, or all guests; raises NoSuchGuest."""
    known = list(guests)
    if not words:
        return [target_of(guest, settings) for guest in known]
    found: dict[int, Target] = {}
    for word in words:
        chosen = [target_of(guest, settings) for guest in known if goes_by(guest, word)]
        if not chosen and word.isdecimal() and door.exists(f"proc/{word}/maps"):
            chosen = [Target(pid=int(word), start_ticks=0, name=word)]
        if not chosen:
            raise NoSuchGuest(word)
        found.update((target.pid, target) for target in chosen)
    return list(found.values())
