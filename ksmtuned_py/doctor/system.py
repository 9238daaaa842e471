"""The system that a mend has to fit: what its kernel can do, its systemd, its distribution, its TuneD profile."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.guests.parse import printable
from ksmtuned_py.model import KSM_DIRECTORY

UKSM_DIRECTORY = "sys/kernel/mm/uksm"
SYSTEMD_LIBRARIES = ("usr/lib/systemd", "lib/systemd")
_SYSTEMD = re.compile(r"libsystemd-shared-(\d+)")
TUNED_PROFILES = ("etc/tuned/profiles", "etc/tuned", "usr/lib/tuned/profiles", "usr/lib/tuned")
_PROFILE = re.compile(r"[\w.+-]+")
"""What a directory of a profile may be called; anything else is no path to look at."""
_INCLUDE = re.compile(r"^\s*include\s*=\s*(\S+)", re.MULTILINE)
_WRITES_KSM = re.compile(r"^[^#\n]*(/sys/kernel/mm/ksm/|\bdisable_ksm\b)", re.MULTILINE)
TUNED_WRITERS = ("cpu-partitioning*", "realtime-virtual-host")
"""TuneD's own profiles that stop KSM, for where the profile's files cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What TuneD does here."""

    profile: str
    writes_in: str = ""
    """The file of the active profile that writes KSM's knobs; '' when none does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What it is made of."""

    distribution: frozenset[str] = frozenset()
    """ID and ID_LIKE of os-release."""
    systemd: int | None = None
    """Its version; None when it is not to be seen."""
    keeps_enrolment: bool = False
    """A program that was enrolled from outside stays so when it is executed."""
    uksm: str = ""
    """The directory of UKSM; '' when the kernel has none."""
    tuned: Tuned | None = None
    """None when no profile is active."""


def read_system(door: Door) -> System:
    """What can be seen below the door's root; nothing is run for it."""
    return System(
        distribution=_distribution(door),
        systemd=_systemd(door),
        # Both came with Linux 6.7, and a file can be looked for.
        keeps_enrolment=door.exists(f"{KSM_DIRECTORY}/smart_scan"),
        uksm=door.path(UKSM_DIRECTORY) if door.exists(UKSM_DIRECTORY) else "",
        tuned=_tuned(door),
    )


def _text(door: Door, path: str) -> str:
    with suppress(KsmtunedError, OSError):
        return door.read_if_there(path) or ""
    return ""


def _distribution(door: Door) -> frozenset[str]:
    text = _text(door, "etc/os-release") or _text(door, "usr/lib/os-release")
    pairs = (line.partition("=")[::2] for line in text.splitlines())
    return frozenset(word for name, value in pairs if name in ("ID", "ID_LIKE") for word in value.strip("\"'").split())


def _systemd(door: Door) -> int | None:
    """From the name of its library, which carries the version: no program has to be run."""
    directories = [*SYSTEMD_LIBRARIES, *(f"usr/lib/{name}/systemd" for name in door.names("usr/lib"))]
    names = (name for directory in directories for name in door.names(directory))
    return next((int(match[1]) for name in names if (match := _SYSTEMD.match(name))), None)


def _tuned(door: Door) -> Tuned | None:
    profile = _text(door, "etc/tuned/active_profile").strip()
    if not profile:
        return None
    names = filter(_PROFILE.fullmatch, profile.split())
    writers = (writer for name in names for writer in _writers(door, name, frozenset()))
    return Tuned(profile=printable(profile), writes_in=next(writers, ""))


def _writers(door: Door, profile: str, above: frozenset[str]) -> Iterator[str]:
    """The files of a profile, and of those it includes, that write KSM's knobs."""
    directory = next((f"{place}/{profile}" for place in TUNED_PROFILES if door.names(f"{place}/{profile}")), "")
    if not directory and any(fnmatchcase(profile, pattern) for pattern in TUNED_WRITERS):
        yield f"profile {profile}"
    for name in door.names(directory) if directory else []:
        text = _text(door, f"{directory}/{name}")
        if _WRITES_KSM.search(text):
            yield door.path(f"{directory}/{name}")
        if name == "tuned.conf":
            included = {part for match in _INCLUDE.finditer(text) for part in match[1].split(",")}
            for other in filter(_PROFILE.fullmatch, sorted(included - above - {profile})):
                yield from _writers(door, other, above | {profile})
