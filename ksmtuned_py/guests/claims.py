"""Finds the true process of a libvirt domain when several processes have its UUID.

Any user may start a process with a domain's UUID on its command line. Taken for the domain, it would be judged by the
domain's tag, and switching it would switch the domain. libvirt keeps a file with the PID of each of its domains.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.guests.domains import Domain
from ksmtuned_py.guests.slowlooks import LIBVIRT_PIDS
from ksmtuned_py.model import Guest


def claimed(door: Door, guests: Iterable[Guest], domains: Mapping[str, Domain]) -> dict[str, int | None]:
    """The true PID for each UUID that several guests have; None where libvirt does not tell it."""
    count = Counter(guest.uuid for guest in guests)
    return {uuid: _pid(door, domain) for uuid, domain in domains.items() if count[uuid] > 1}


def told(claims: Mapping[str, int | None], guests: Iterable[Guest]) -> Iterator[str]:
    """A sentence for the admin about each UUID that several guests have."""
    pids: dict[str, list[int]] = {}
    for guest in guests:
        pids.setdefault(guest.uuid, []).append(guest.pid)
    for uuid, pid in claims.items():
        whose = f"libvirt's is {pid}, and no other is taken for it" if pid else "whose it is nobody can say"
        yield f"the processes {', '.join(map(str, pids[uuid]))} all say that they are {uuid}: {whose}"


def _pid(door: Door, domain: Domain) -> int | None:
    try:
        return door.read_int(f"{LIBVIRT_PIDS}/{domain.name}.pid")
    except KsmtunedError:
        return None
