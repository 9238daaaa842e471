"""Saves the knobs that were found, with whose they are. Only knobs of the same origin are ever written back."""

import os

from ksmtuned_py.config import Kernel
from ksmtuned_py.config.types import OLD_BACKENDS
from ksmtuned_py.door import Door
from ksmtuned_py.door.boot import boot_id
from ksmtuned_py.door.runtime import Origin, Runtime
from ksmtuned_py.errors import NotOurs
from ksmtuned_py.host import Host
from ksmtuned_py.model import KHUGEPAGED_KNOBS, KNOB_NAMES, KnobName, Knobs
from ksmtuned_py.undo.knobs import without

ENDS_WITH_US = ("model", "scan", *OLD_BACKENDS)
"""Backends whose knobs are in a process of ours, and end with it."""


def origin_of(door: Door, backend: str) -> Origin:
    """The origin of the knobs: the backend, the root, and the boot."""
    return Origin(backend, os.path.realpath(door.root), boot_id(door))


def save(runtime: Runtime, origin: Origin, host: Host, kernel: Kernel) -> None:
    """Save the knobs that are found, except those of [kernel] that nobody will write."""
    found = without(host.backend.knobs(), untouched(kernel))
    runtime.save_originals(origin, found)
    host.own(found)


def untouched(kernel: Kernel) -> frozenset[KnobName]:
    """The knobs that only [kernel] would change, and does not."""
    kept = {name for name, value in kernel.model_dump().items() if value == "keep"}
    left = {name for name in KNOB_NAMES if name in kept}
    return frozenset(left.union(KHUGEPAGED_KNOBS) if "khugepaged" in kept else left)


def owed(runtime: Runtime, origin: Origin) -> tuple[Knobs | None, str | None]:
    """The knobs to be put back, and a sentence for the admin; raises NotOurs for knobs of another origin.

    Knobs that no longer exist, as after a reboot, are forgotten.
    """
    saved = runtime.originals()
    if saved is None:
        return None, None
    if saved.origin == origin:
        return saved.knobs, None
    if saved.origin.backend in ENDS_WITH_US:
        runtime.forget_originals()
        return None, None
    if saved.origin.boot_id != origin.boot_id and saved.origin.root == origin.root:
        runtime.forget_originals()
        return None, f"{runtime.originals_path}: saved before the last boot, so forgotten"
    raise NotOurs(str(runtime.originals_path), str(saved.origin), str(origin), saved.origin.root)
