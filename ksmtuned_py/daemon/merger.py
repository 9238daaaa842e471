"""Chooses who merges on this host, and tells what cannot be done there."""

import os
from importlib.util import find_spec
from typing import Literal

from ksmtuned_py.config import Config
from ksmtuned_py.door import Door
from ksmtuned_py.door.ksm import check_ksm, has_none
from ksmtuned_py.errors import KsmtunedError, NoKsm, NoMerger, NoScanner, NotPermitted, ReadOnly, RootNotPermitted
from ksmtuned_py.model import KSM_DIRECTORY

Merger = Literal["kernel", "scan", "model", "none"]
"""Who merges. It is "none" where nobody can, and we only watch."""
SCAN_LIBRARIES = ("numpy", "xxhash")


def merger_of(door: Door, config: Config) -> Merger:
    """Choose who merges, as the configuration wants it. Nothing is opened, started or locked for it.

    Raises NoKsm, NoScanner, NotPermitted or ReadOnly when that cannot be. A host on which nothing merges is an error
    only for whoever wants to steer it.
    """
    watches = config.daemon.mode == "observe"
    name = _wanted(door, config)
    try:
        _check_there(door, config, name)
    except (NoKsm, NoMerger):
        if watches:
            return "none"
        raise
    if not watches:
        check_rights(door, name)
    return name


def limits(door: Door, config: Config) -> str | None:
    """The sentence on what a daemon that only watches can do on this host, and what not; None where it can do all."""
    name = _wanted(door, config)
    try:
        _check_there(door, config, name)
    except KsmtunedError as error:
        return (
            f"{error}. Nothing is merged here; memory, pressure and guests are watched all the same, also for /metrics"
        )
    try:
        check_rights(door, name)
    except (ReadOnly, RootNotPermitted) as error:
        return f"{error}. It decides and explains all the same, and cannot be switched on like this"
    except NotPermitted:  # who is not root knows that
        pass
    return None


def _wanted(door: Door, config: Config) -> Literal["kernel", "scan", "model"]:
    """The name of the backend. For "auto" it is the kernel, or our own scanner on a host whose kernel has no KSM."""
    name = config.daemon.backend
    if name == "auto":
        return "scan" if door.root == "/" and has_none(door) else "kernel"
    return name


def _check_there(door: Door, config: Config, name: Merger) -> None:
    match name:
        case "kernel":
            check_ksm(door)
        case "scan" if not all(map(find_spec, SCAN_LIBRARIES)):
            libraries = " and ".join(SCAN_LIBRARIES)
            is_second = config.daemon.backend == "auto"
            raise NoMerger(libraries, door.path(KSM_DIRECTORY)) if is_second else NoScanner(libraries)


def check_rights(door: Door, name: Merger) -> None:
    """Raise NotPermitted or ReadOnly where we may not steer it."""
    match name:
        case "kernel":
            door.check_writable(f"{KSM_DIRECTORY}/run")
        case "scan" if os.geteuid() != 0:
            raise NotPermitted(door.path("proc"), "read other processes' memory")
