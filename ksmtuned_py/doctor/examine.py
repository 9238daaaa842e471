"""All checks on all facts. Pure."""

from collections.abc import Iterator

from ksmtuned_py.doctor.cooperation import free_memory, zeros_refused
from ksmtuned_py.doctor.finding import Facts, Finding
from ksmtuned_py.doctor.guestchecks import GUEST_CHECKS, Patient
from ksmtuned_py.doctor.hostchecks import FACTS_CHECKS, HOST_CHECKS, SNAPSHOT_CHECKS
from ksmtuned_py.model import Guest


def examine(facts: Facts, only: Guest | None = None) -> Iterator[Finding]:
    """The host's findings, then each guest's; with `only`, that guest's behind the host's."""
    for facts_check in (*FACTS_CHECKS, zeros_refused):
        yield from facts_check(facts)
    now = facts.snapshot
    if now is not None:
        for host_check in HOST_CHECKS:
            yield from host_check(facts, now)
        for snapshot_check in SNAPSHOT_CHECKS:
            yield from snapshot_check(now)
    for guest in [only] if only else facts.guests:
        if now is not None:
            for guest_check in GUEST_CHECKS:
                yield from guest_check(Patient(facts, now, guest))
        yield from free_memory(facts, guest)
