"""Lists the guests with all that the kernel, libvirt and the admin's rules say of them."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple, Protocol

from ksmtuned_py.config import Guests, InForce
from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.guests.awaited import Awaited
from ksmtuned_py.guests.cgroups import CGROUP_ROOT
from ksmtuned_py.guests.claims import claimed, told
from ksmtuned_py.guests.domains import View
from ksmtuned_py.guests.evidence import LIBVIRT
from ksmtuned_py.guests.hugelooks import HugeLooks
from ksmtuned_py.guests.losses import Losses
from ksmtuned_py.guests.names import placed, renamed, told_apart
from ksmtuned_py.guests.places import Place, Places
from ksmtuned_py.guests.pods import LOGS, Pods
from ksmtuned_py.guests.rules import Choice, is_undecided, open_questions, ruled
from ksmtuned_py.guests.unknown import TOLD_WITHIN_SECONDS, undecided_sentence, unknown_of
from ksmtuned_py.model import KSM_DIRECTORY, Guest, GuestKey, Slice

STALE_SECONDS = 30.0
"""The admin is told when libvirt's word is older than this; a restart of libvirtd takes less."""


class _Placed(NamedTuple):
    """A guest in its place, and all that it was made of."""

    told: tuple[Guest, str | None, int | None, Slice | None, str | None]
    guest: Guest


class Finder(Protocol):
    """Finds the guests among the processes."""

    @property
    def suspects(self) -> tuple[str, ...]:
        """Programs seen running that are known to write KSM's knobs."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong at the last look, as sentences."""

    def find(self, now_seconds: float) -> tuple[Guest, ...]:
        """The guests by PID."""

    def heed(self, pids: Iterable[int]) -> bool:
        """Whether programs that started matter."""

    def let_go(self) -> None:
        """Close the descriptors on the guests, as long as nobody looks."""


class AccountFinder(Finder, Protocol):
    """A finder that also tells whose accounts it has just read."""

    @property
    def fresh(self) -> frozenset[GuestKey]:
        """The guests whose accounts were read at the last look."""


class Link(Protocol):
    """Has the latest view of libvirt's domains."""

    view: View


class Switches(Protocol):
    """Takes guests' memory out of merging."""

    @property
    def switched_off(self) -> frozenset[GuestKey]:
        """The guests whose memory was taken out of merging."""


class Roster:
    """Finds the guests, and adds their names, places, rules and what libvirt says of them."""

    def __init__(
        self,
        door: Door,
        finder: AccountFinder,
        in_force: InForce,
        link: Link | None = None,
        switches: Switches | None = None,
    ) -> None:
        """Without `switches` nobody takes guests' memory out of merging."""
        self._in_force = in_force
        self._switches = switches
        self._door = door
        self._finder = finder
        self._link = link
        self._places = Places(door)
        self._pods = Pods(door)
        self._huge = HugeLooks(door)
        self._losses = Losses()
        self._choice = Choice()
        self._awaited = Awaited()
        self._began_seconds: float | None = None
        self._now_seconds = 0.0
        self._seen_seconds: dict[GuestKey, float] = {}
        self._placed: dict[GuestKey, _Placed] = {}
        """What was last made of each guest."""
        self._undecided_since: float | None = None
        self._told: tuple[str | None, ...] = ()

    @property
    def settings(self) -> Guests:
        """The rules in force."""
        return self._in_force.config.guests

    @property
    def suspects(self) -> tuple[str, ...]:
        """Programs seen running that are known to write KSM's knobs."""
        return self._finder.suspects

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong at the last look, as sentences."""
        return (*self._finder.problems, *filter(None, self._told))

    def heed(self, pids: Iterable[int]) -> bool:
        """Whether programs that started matter."""
        return self._finder.heed(pids)

    def let_go(self) -> None:
        """Close the descriptors on the guests, as long as nobody looks."""
        self._finder.let_go()

    def find(self, now_seconds: float) -> tuple[Guest, ...]:
        """The guests by PID; `now_seconds` is monotonic."""
        found = self._huge.look(self._finder.find(now_seconds), now_seconds)
        self._placed = {guest.key: self._placed[guest.key] for guest in found if guest.key in self._placed}
        self._now_seconds = now_seconds
        self._began_seconds = now_seconds if self._began_seconds is None else self._began_seconds
        view = self._link.view if self._link else None
        off = self._switches.switched_off if self._switches else frozenset()
        places = self._places.look(found)
        self._pods.look(place.cgroup or "" for place in places.values())
        self._seen_seconds = {guest.key: self._seen_seconds.get(guest.key, now_seconds) for guest in found}
        claims = claimed(self._door, found, view.domains) if view else {}
        guests = told_apart(
            self._known(
                replace(guest, switched_off=True) if guest.key in off else guest, places[guest.key], view, claims
            )
            for guest in found
        )
        self._losses = self._losses.after(guests, self._finder.fresh, self._full_scans())
        self._choice = self._choice.after(guests, self.settings) if self.settings.isolation == "groups" else Choice()
        self._told = (
            _problem(view, now_seconds, self._began_seconds),
            self._undecided(guests, view, now_seconds),
            *told(claims, found),
        )
        wanted = ruled(guests, self.settings, self._choice.group, self._losses.passes)
        self._awaited = self._awaited.after(wanted, now_seconds)
        return self._awaited.marked(wanted)

    def _known(self, guest: Guest, place: Place, view: View | None, claims: Mapping[str, int | None]) -> Guest:
        domain = view.domains.get(guest.uuid) if view else None
        namespace = self._pods.namespace(place.cgroup) if place.cgroup is not None else None
        seen = self._in_place(guest, place, namespace)
        if claims.get(guest.uuid, guest.pid) != guest.pid:
            if claims[guest.uuid] is None:
                return replace(seen, unknown=("tag", "name", *seen.unknown))
            return replace(seen, uuid="")
        if view is None or domain is None or view.at_seconds is None:
            used = bool(self.settings.libvirt_uri)
            unknown = unknown_of(seen, view, self._seen_seconds[guest.key], libvirt_is_used=used)
            return replace(seen, unknown=unknown + seen.unknown) if unknown else seen
        return replace(
            renamed(seen, domain.name, domain.aliases),
            tag=domain.tag,
            obstacles=domain.obstacles,
            evidence=tuple(dict.fromkeys([*seen.evidence, LIBVIRT])),
            libvirt_age_seconds=max(0.0, self._now_seconds - view.at_seconds),
        )

    def _in_place(self, guest: Guest, place: Place, namespace: str | None) -> Guest:
        """The guest with its place and its names there. It is made anew only when one of them has changed."""
        told = (guest, place.cgroup, place.room_bytes, place.slice, namespace)
        before = self._placed.get(guest.key)
        if before is None or before.told != told:
            seen = replace(
                placed(guest, place.cgroup or "", namespace),
                namespace=namespace or "",
                room_bytes=place.room_bytes,
                slice=place.slice,
                unknown=_unplaced(place, namespace),
            )
            before = self._placed[guest.key] = _Placed(told, seen)
        return before.guest

    def _undecided(self, guests: Sequence[Guest], view: View | None, now_seconds: float) -> str | None:
        """The sentence about guests for whom no rule can be judged yet; None when there is none.

        It waits some seconds, because libvirt tells of each new guest only a moment later.
        """
        undecided = [guest for guest in guests if is_undecided(guest, self.settings.rule)]
        self._undecided_since = (self._undecided_since or now_seconds) if undecided else None
        if self._undecided_since is None or now_seconds < self._undecided_since + TOLD_WITHIN_SECONDS:
            return None
        unified = self._door.exists(f"{CGROUP_ROOT}/cgroup.controllers")
        libvirt = "libvirt has not told of it yet" if view else "guests.libvirt_uri leaves libvirt out"
        cgroup = "its cgroup cannot be read" if unified else "this host has no unified cgroups, by which rules go"
        pod = f"its pod has no directory in /{LOGS}"
        questions = sorted({name for guest in undecided for name in open_questions(guest, self.settings.rule)})
        return undecided_sentence(
            undecided, questions, {"tag": libvirt, "name": libvirt, "cgroup": cgroup, "namespace": pod}
        )

    def _full_scans(self) -> int:
        with suppress(KsmtunedError):
            return self._door.read_int(f"{KSM_DIRECTORY}/full_scans") or 0
        return 0


def _unplaced(place: Place, namespace: str | None) -> tuple[str, ...]:
    return (*(("cgroup",) if place.cgroup is None else ()), *(("namespace",) if namespace is None else ()))


def _problem(view: View | None, now_seconds: float, began_seconds: float) -> str | None:
    """The sentence that libvirt has not answered for long; None otherwise. Nobody misses a libvirt without domains."""
    if view is None or not view.expected or (not view.domains and view.at_seconds is not None):
        return None
    since = began_seconds if view.at_seconds is None else view.at_seconds
    if now_seconds - since < STALE_SECONDS or (not view.problem and view.at_seconds is not None):
        return None
    return f"libvirt does not answer, what it last said still counts: {view.problem or 'it has said nothing yet'}"
