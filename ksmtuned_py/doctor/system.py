"""Reads the system that a mend has to fit: kernel, systemd, distribution, and TuneD profile."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ksmtuned_py.door import Door
from ksmtuned_py.door.text import printable
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.model import KSM_DIRECTORY

UKSM_DIRECTORY = "sys/kernel/mm/uksm"
SYSTEMD_LIBRARIES = ("usr/lib/systemd", "lib/systemd")
_SYSTEMD = re.compile(r"libsystemd-shared-(\d+)")
TUNED_PROFILES = ("etc/tuned/profiles", "etc/tuned", "usr/lib/tuned/profiles", "usr/lib/tuned")
_PROFILE = re.compile(r"[\w.+-]+")
"""Matches the name of a profile's directory. Anything else is no path for us to read."""
_INCLUDE = re.compile(r"^\s*include\s*=\s*(\S+)", re.MULTILINE)
_WRITES_KSM = re.compile(r"^[^#\n]*(/sys/kernel/mm/ksm/|\bdisable_ksm\b)", re.MULTILINE)
TUNED_WRITERS = ("cpu-partitioning*", "realtime-virtual-host")
"""TuneD's own profiles that stop KSM, for when a profile's files cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The active profile of TuneD."""

    profile: str
    writes_in: str = ""
    """The file of the active profile that writes KSM's knobs; '' when none does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """The system, as far as mends depend on it."""

    distribution: frozenset[str] = frozenset()
    """The words of ID and ID_LIKE in os-release."""
    systemd: int | None = None
    """The version of systemd; None when it cannot be seen."""
    keeps_enrolment: bool = False
    """The kernel keeps a process enrolled across exec."""
    uksm: str = ""
    """The directory of UKSM; '' when the kernel has no UKSM."""
    tuned: Tuned | None = None
    """The active TuneD profile; None when none is active."""


def read_system(door: Door) -> System:
    """Read the system below the door's root. No program is run for it."""
    return System(
        distribution=_distribution(door),
        systemd=_systemd(door),
        # Keeping enrolment came with Linux 6.7, as did this file, which can be seen.
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
    """The version of systemd, from the name of its library, so that no program has to be run; None without it."""
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
