"""Reads what the doctor looks at; writes nothing."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from ksmtuned_py.config import Config
from ksmtuned_py.doctor.finding import Facts, HugePages
from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.guests.smaps import Mapping, parse_smaps
from ksmtuned_py.machine import look
from ksmtuned_py.model import KSM_DIRECTORY, Guest, Snapshot
from ksmtuned_py.publish.statusfile import Status

THP = "sys/kernel/mm/transparent_hugepage"
NODES = "sys/devices/system/node"
OLD_UNITS = ("ksmtuned.service", "ksm.service")
WANTS = "etc/systemd/system/multi-user.target.wants"


def read_facts(door: Door, config: Config, status: Status | None) -> Facts:
    """A look of our own, with what only the daemon knows (what it switched off, who loses) taken over from it."""
    snapshot = _snapshot(door, config, status)
    return Facts(
        ksm_path=door.path(KSM_DIRECTORY),
        snapshot=snapshot,
        settings=config.guests,
        daemon=f"the daemon says: {status.decision.reason}" if status else "",
        suspects=snapshot.suspects if snapshot else (),
        units=tuple(unit for unit in OLD_UNITS if _is_there(door, unit)),
        numa_nodes=max(1, sum(name.removeprefix("node").isdigit() for name in door.names(NODES))),
        huge_pages=_huge_pages(door),
    )


def with_mappings(facts: Facts, door: Door, guests: Iterable[Guest]) -> Facts:
    """With the smaps of these guests: page-table walks, so a moment for each GiB."""
    found = {guest.pid: mappings for guest in guests if (mappings := _mappings(door, guest.pid)) is not None}
    return replace(facts, mappings=found)


def _snapshot(door: Door, config: Config, status: Status | None) -> Snapshot | None:
    if not door.exists(KSM_DIRECTORY):
        return None
    now = look(door, config)
    known = {(guest.pid, guest.start_ticks): guest for guest in status.snapshot.guests} if status else {}
    return replace(now, guests=tuple(_as_the_daemon_knows(guest, known.get(guest.key)) for guest in now.guests))


def _as_the_daemon_knows(guest: Guest, told: Guest | None) -> Guest:
    if told is None:
        return guest
    return replace(guest, switched_off=told.switched_off, losing_passes=told.losing_passes)


def _is_there(door: Door, unit: str) -> bool:
    return door.exists(f"sys/fs/cgroup/system.slice/{unit}") or door.exists(f"{WANTS}/{unit}")


def _huge_pages(door: Door) -> HugePages:
    def number(name: str) -> int | None:
        with suppress(KsmtunedError):
            return door.read_int(f"{THP}/khugepaged/{name}")
        return None

    enabled = ""
    with suppress(KsmtunedError):
        enabled = (door.read_if_there(f"{THP}/enabled") or "").partition("[")[2].partition("]")[0]
    return HugePages(
        enabled=enabled or "never", max_ptes_shared=number("max_ptes_shared"), max_ptes_none=number("max_ptes_none")
    )


def _mappings(door: Door, pid: int) -> list[Mapping] | None:
    with suppress(KsmtunedError, OSError):
        text = door.read_if_there(f"proc/{pid}/smaps")
        return parse_smaps(text) if text else None
    return None
