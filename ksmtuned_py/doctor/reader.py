"""Reads the facts for the doctor, and writes nothing."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from stat import S_ISREG

from ksmtuned_py.config import Config
from ksmtuned_py.daemon.machine import known_guests
from ksmtuned_py.doctor.finding import Facts, Manager, Seen
from ksmtuned_py.doctor.system import read_system
from ksmtuned_py.door import Door
from ksmtuned_py.door.ksm import check_ksm
from ksmtuned_py.errors import HiddenKsm, KsmtunedError, NoKsm
from ksmtuned_py.guests.balloon import Balloon, parse_balloon, tells_of_devices
from ksmtuned_py.guests.cgroups import Limit, limits, parse_cgroup
from ksmtuned_py.guests.hugepages import read_huge_pages
from ksmtuned_py.guests.obstacles import parse_command_line, parse_readconfig, read_files
from ksmtuned_py.guests.parse import parse_swapped
from ksmtuned_py.guests.patience import ask_one
from ksmtuned_py.guests.process import Inside, ProcessFiles
from ksmtuned_py.guests.programs import COMM_LENGTH
from ksmtuned_py.guests.smaps import SMAPS_SECONDS, Smap, parse_smaps
from ksmtuned_py.model import KSM_DIRECTORY, Guest, Snapshot
from ksmtuned_py.publish.statusfile import Status
from ksmtuned_py.scanner.zeroplace import place_refusal
from ksmtuned_py.units import MIB

NODES = "sys/devices/system/node"
OLD_UNITS = ("ksmtuned.service", "ksm.service")
WANTS = "etc/systemd/system/multi-user.target.wants"
CGROUP_SECONDS = 1.0
CONTAINERS = ("kubepods", "docker", "libpod", "crio", "containerd", "lxc")
"""Parts of a path by which a cgroup is known as a container's."""


def read_facts(door: Door, config: Config, snapshot: Snapshot | None, status: Status | None) -> Facts:
    """Read what a snapshot has not of a host, which is None without KSM. `status` is the daemon's word, if one runs."""
    return Facts(
        ksm_path=door.path(KSM_DIRECTORY),
        snapshot=snapshot,
        hidden_ksm=_hidden_ksm(door),
        settings=config.guests,
        system=read_system(door),
        policy=config.policy.name,
        holds_khugepaged=status is not None and config.kernel.khugepaged == "need",
        daemon=f"the daemon says: {status.decision.reason}" if status else "",
        before=status.snapshot if status else None,
        foreign=status.snapshot.foreign if status else (),
        managers=_managers(door, snapshot.suspects) if snapshot else (),
        units=tuple(unit for unit in OLD_UNITS if _is_there(door, unit)),
        numa_nodes=max(1, sum(name.removeprefix("node").isdigit() for name in door.names(NODES))),
        huge_pages=read_huge_pages(door),
        limits=_limits(door, snapshot.guests) if snapshot else (),
        scanning=config.daemon.backend == "scan",
        zeros_refused=_zeros_refused(door, config),
        guests_without_ksm=() if snapshot else known_guests(door, config),
    )


def with_guests(facts: Facts, door: Door, guests: Iterable[Guest]) -> Facts:
    """The facts with the command lines and smaps of these guests. It walks page tables, a moment for each GiB."""
    seen: dict[int, Seen] = {}
    for guest in guests:
        found = ask_one(ProcessFiles(door, guest.pid), partial(_seen, door, guest), SMAPS_SECONDS)
        seen |= {guest.pid: found} if found is not None else {}
    return replace(facts, seen=seen)


def _seen(door: Door, guest: Guest, inside: Inside) -> Seen:
    mappings = tuple(parse_smaps(inside.read("smaps") or ""))
    words = inside.words()
    devices = _with_files(door, guest.pid, words)
    return Seen(
        mappings=mappings,
        balloon=_balloon(guest.kind, devices),
        obstacles=parse_command_line(guest.kind, devices if devices is not None else words),
        swapped_bytes=_swapped_bytes(door, guest.pid, mappings),
    )


def _with_files(door: Door, pid: int, words: Sequence[str]) -> list[str] | None:
    """The command line with the files that it names read in; None when one of them cannot be read."""
    found = list(words)
    for file in read_files(words):
        place = f"proc/{pid}/root{file}" if file.startswith("/") else f"proc/{pid}/cwd/{file}"
        text = _text(door, place) if _is_small(door.path(place)) else ""
        if not text:
            return None
        found += parse_readconfig(text)
    return found


def _is_small(path: str) -> bool:
    """Whether a path, which anybody may have chosen, is a small regular file: not endless, and no pipe."""
    with suppress(OSError):
        found = Path(path).stat()
        return S_ISREG(found.st_mode) and found.st_size <= MIB
    return False


def _balloon(kind: str, words: Sequence[str] | None) -> Balloon | None:
    return parse_balloon(words) if words is not None and tells_of_devices(kind, words) else None


def _swapped_bytes(door: Door, pid: int, mappings: Sequence[Smap]) -> int:
    """The swapped bytes by smaps, or where we may not read that, by the one line that everybody may read."""
    if mappings:
        return sum(mapping.sizes.get("Swap", 0) for mapping in mappings)
    return parse_swapped(_text(door, f"proc/{pid}/status"))


def _text(door: Door, path: str) -> str:
    with suppress(KsmtunedError, OSError):
        return door.read_if_there(path) or ""
    return ""


def _managers(door: Door, names: Sequence[str]) -> tuple[Manager, ...]:
    """The managers with the places where they run, which tell how they are stopped."""
    pids = {ProcessFiles(door, int(pid)).name(): int(pid) for pid in door.names("proc") if pid.isdecimal()}
    return tuple(_manager(door, name, pids.get(name[:COMM_LENGTH])) for name in names)


def _manager(door: Door, name: str, pid: int | None) -> Manager:
    text = ask_one(ProcessFiles(door, pid), lambda inside: inside.read("cgroup"), CGROUP_SECONDS) if pid else None
    cgroup = parse_cgroup(text or "") or ""
    if any(word in cgroup for word in CONTAINERS):
        return Manager(name=name, container=cgroup)
    last = cgroup.rpartition("/")[2]
    return Manager(name=name, unit=last if last.endswith(".service") else "")


def _limits(door: Door, guests: Iterable[Guest]) -> tuple[Limit, ...]:
    """The limits of all cgroups that guests are in, once for each cgroup."""
    found = {limit.cgroup: limit for guest in guests for limit in limits(door, guest.cgroup)}
    return tuple(found.values())


def _hidden_ksm(door: Door) -> HiddenKsm | None:
    try:
        check_ksm(door)
    except HiddenKsm as error:
        return error
    except NoKsm:
        pass
    return None


def _zeros_refused(door: Door, config: Config) -> str | None:
    used = config.daemon.backend == "scan" or (config.daemon.backend == "auto" and not door.exists(KSM_DIRECTORY))
    if not used or config.scan.reclaim == "report":
        return None
    return place_refusal(door, to_disk=config.scan.zero_pages_to_disk)


def _is_there(door: Door, unit: str) -> bool:
    return door.exists(f"sys/fs/cgroup/system.slice/{unit}") or door.exists(f"{WANTS}/{unit}")
