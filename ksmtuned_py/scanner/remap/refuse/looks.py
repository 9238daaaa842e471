"""Tells whether a guest may be remapped, by all that can be seen of it while it runs."""

from contextlib import suppress

from ksmtuned_py.door import Door
from ksmtuned_py.guests.cgroups import is_frozen
from ksmtuned_py.scanner.process import Gone, Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.refuse.eligibility import (
    command_refusal,
    mappings_refusal,
    nested_refusal,
    status_refusal,
)
from ksmtuned_py.scanner.remap.refuse.opened import Belongings
from ksmtuned_py.scanner.remap.stop.threads import MOST_THREADS, TOO_MANY_THREADS

_NESTED = {"kvm_intel": "vmx", "kvm_amd": "svm"}
"""Modules of KVM, and the name of the processor feature that lets a guest have guests of its own."""


def look(door: Door, process: Process, least_bytes: int) -> Belongings:
    """Raises Refused for a guest that cannot be remapped safely."""
    belongings = Belongings(door, process)
    words = process.read_text("cmdline").split("\0")
    reason = (
        _threads_refusal(process)
        or command_refusal(words)
        or mappings_refusal(process.mappings(), least_bytes)
        or belongings.refusal(process.mappings())
        or (_nested_refusal(door, words) if belongings.has_kvm else None)
    )
    if is_frozen(door, process.read_text("cgroup")):
        reason = "its control group is frozen"
    if reason:
        raise Refused(reason)
    return belongings


def _threads_refusal(process: Process) -> str | None:
    threads = process.names("task", MOST_THREADS + 1)
    if len(threads) > MOST_THREADS:
        return TOO_MANY_THREADS
    for thread in threads:
        with suppress(Gone):  # the refusal is about that thread only
            if reason := status_refusal(process.status(f"task/{thread}/status")):
                return reason
    return None


def _nested_refusal(door: Door, words: list[str]) -> str | None:
    for module, vendor in _NESTED.items():
        nested = door.read_if_there(f"sys/module/{module}/parameters/nested") or ""
        if nested.strip() in ("Y", "1"):
            return nested_refusal(words, vendor)
    return None
