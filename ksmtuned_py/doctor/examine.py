"""Runs all checks on all facts. Pure."""

from collections.abc import Iterator

from ksmtuned_py.doctor.causes import causes
from ksmtuned_py.doctor.cooperation import free_memory, zeros_refused
from ksmtuned_py.doctor.finding import Facts, Finding
from ksmtuned_py.doctor.guestchecks import GUEST_CHECKS
from ksmtuned_py.doctor.hostchecks import FACTS_CHECKS, HOST_CHECKS
from ksmtuned_py.doctor.managers import managers
from ksmtuned_py.doctor.materials import MATERIAL_CHECKS
from ksmtuned_py.doctor.memorychecks import MEMORY_CHECKS
from ksmtuned_py.doctor.patient import Patient
from ksmtuned_py.model import Guest


def examine(facts: Facts, only: Guest | None = None) -> list[Finding]:
    """The causes on the host, and then in each guest. With `only`, those of the host and of that guest."""
    return causes(_all(facts, [only] if only else facts.guests))


def _all(facts: Facts, guests: tuple[Guest, ...] | list[Guest]) -> Iterator[Finding]:
    for facts_check in (*FACTS_CHECKS, managers, zeros_refused):
        yield from facts_check(facts)
    now = facts.snapshot
    if now is not None:
        for host_check in (*HOST_CHECKS, *MEMORY_CHECKS):
            yield from host_check(facts, now)
    for guest in guests:
        if now is not None:
            for guest_check in (*GUEST_CHECKS, *MATERIAL_CHECKS):
                yield from guest_check(Patient(facts, now, guest))
        yield from free_memory(facts, guest)
