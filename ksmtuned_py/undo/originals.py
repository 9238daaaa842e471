"""The knobs that were found, and whose they are: nothing else is ever written from what was saved."""

import os

from ksmtuned_py.config import Kernel
from ksmtuned_py.door import Door
from ksmtuned_py.errors import NotOurs
from ksmtuned_py.model import KNOB_NAMES, KnobName, Knobs
from ksmtuned_py.runtime import Origin, Runtime
from ksmtuned_py.undo.knobs import without

BOOT_ID = "proc/sys/kernel/random/boot_id"
ENDS_WITH_US = ("memory", "scan")
"""Backends whose knobs are in a process of ours."""


def origin_of(door: Door, backend: str) -> Origin:
    """Which knobs are meant: of whom, below which root, and since which boot."""
    return Origin(backend, os.path.realpath(door.root), (door.read_if_there(BOOT_ID) or "").strip())


def save(runtime: Runtime, origin: Origin, found: Knobs, kernel: Kernel) -> None:
    """Remember what was found, but for knobs that nobody will write: those of [kernel] that are to be kept."""
    runtime.save_originals(origin, without(found, untouched(kernel)))


def untouched(kernel: Kernel) -> frozenset[KnobName]:
    """Knobs that only [kernel] would change, and does not."""
    kept = {name for name, value in kernel.model_dump().items() if value == "keep"}
    return frozenset(name for name in KNOB_NAMES if name in kept)


def owed(runtime: Runtime, origin: Origin) -> tuple[Knobs | None, str]:
    """What has to be put back, and what is to be told: knobs that are no more are forgotten. NotOurs for another's."""
    saved = runtime.originals()
    if saved is None:
        return None, ""
    if saved.origin == origin:
        return saved.knobs, ""
    if saved.origin.backend in ENDS_WITH_US:
        runtime.forget_originals()
        return None, ""
    if saved.origin.boot_id != origin.boot_id and saved.origin.root == origin.root:
        runtime.forget_originals()
        return None, f"{runtime.originals_path}: saved before the last boot, so forgotten"
    raise NotOurs(str(runtime.originals_path), str(saved.origin), str(origin), saved.origin.root)
