"""Reads what the doctor looks at; writes nothing."""

from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import replace

from ksmtuned_py.backends.scan.zeroplace import place_refusal
from ksmtuned_py.config import Config
from ksmtuned_py.doctor.finding import Facts, HugePages
from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.guests.balloon import Balloon, parse_balloon
from ksmtuned_py.guests.discovery import GuestFinder
from ksmtuned_py.guests.smaps import Mapping, parse_smaps
from ksmtuned_py.machine import look
from ksmtuned_py.model import KSM_DIRECTORY, Guest, Snapshot
from ksmtuned_py.publish.statusfile import Status

THP = "sys/kernel/mm/transparent_hugepage"
NODES = "sys/devices/system/node"
OLD_UNITS = ("ksmtuned.service", "ksm.service")
WANTS = "etc/systemd/system/multi-user.target.wants"
BALLOONING = ("qemu", "cloud-hypervisor")
"""Those whose command lines name all their devices."""


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
        scanning=config.daemon.backend == "scan",
        zeros_refused=_zeros_refused(door, config),
        guests_without_ksm=() if snapshot else _guests(door, config),
    )


def with_guests(facts: Facts, door: Door, guests: Iterable[Guest]) -> Facts:
    """With the command lines and the smaps of these guests: page-table walks, so a moment for each GiB."""
    mappings, balloons = {}, {}
    for guest in guests:
        if (found := _mappings(door, guest.pid)) is not None:
            mappings[guest.pid] = found
        if guest.kind in BALLOONING and (balloon := _balloon(door, guest.pid)) is not None:
            balloons[guest.pid] = balloon
    return replace(facts, mappings=mappings, balloons=balloons)


def _snapshot(door: Door, config: Config, status: Status | None) -> Snapshot | None:
    if not door.exists(KSM_DIRECTORY):
        return None
    now = look(door, config)
    known = {(guest.pid, guest.start_ticks): guest for guest in status.snapshot.guests} if status else {}
    return replace(now, guests=tuple(_as_the_daemon_knows(guest, known.get(guest.key)) for guest in now.guests))


def _guests(door: Door, config: Config) -> tuple[Guest, ...]:
    patterns = config.guests.name_patterns, config.guests.cgroup_patterns
    with closing(GuestFinder(door, patterns[0], mergeable=False, cgroup_patterns=patterns[1])) as finder:
        return finder.find(0)


def _zeros_refused(door: Door, config: Config) -> str:
    used = config.daemon.backend == "scan" or (config.daemon.backend == "auto" and not door.exists(KSM_DIRECTORY))
    if not used or config.scan.reclaim == "report":
        return ""
    return place_refusal(door, to_disk=config.scan.zero_pages_to_disk)


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


def _balloon(door: Door, pid: int) -> Balloon | None:
    with suppress(KsmtunedError, OSError):
        text = door.read_if_there(f"proc/{pid}/cmdline")
        return parse_balloon(text.split("\0")) if text else None
    return None
