"""One guest with all that is known of it. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from ksmtuned_py.config.doctor import Code
from ksmtuned_py.doctor.finding import NOTHING_READ, Facts, Finding, Seen
from ksmtuned_py.guests.smaps import Mapping
from ksmtuned_py.model import Guest, GuestKsm, Snapshot
from ksmtuned_py.units import MIB

LARGE_BYTES = 16 * MIB
"""Smaller mappings are libraries, heaps and ROMs, not a guest's memory."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A guest with what is known of it and around it."""

    facts: Facts
    now: Snapshot
    guest: Guest

    @property
    def seen(self) -> Seen:
        """What was read of it."""
        return self.facts.seen.get(self.guest.pid, NOTHING_READ)

    @property
    def ksm(self) -> GuestKsm | None:
        """Its account; None when it cannot be read."""
        return self.guest.ksm

    @property
    def merged_pages(self) -> int:
        """Merged with others, or with the zero page."""
        return self.ksm.merging_pages + self.ksm.zero_pages if self.ksm else 0

    def has(self, obstacle: str) -> bool:
        """Whether its domain or its command line says so."""
        return obstacle in self.guest.obstacles or obstacle in self.seen.obstacles

    def large(self, wanted: Callable[[Mapping], bool]) -> list[Mapping]:
        """Its large pieces of memory that are like that."""
        return [each for each in self.seen.mappings if _is_memory(each) and wanted(each)]

    def large_bytes(self, wanted: Callable[[Mapping], bool]) -> int:
        """How large they are together."""
        return sum(each.size_bytes for each in self.large(wanted))

    def finding(self, code: Code, sentence: str, evidence: str, mend: str) -> Finding:
        """One about this guest."""
        return Finding(code=code, guest=self.guest.name, sentence=sentence, evidence=evidence, mend=mend)

    def note(self, code: Code, sentence: str, evidence: str, mend: str) -> Finding:
        """One that is no fault."""
        return Finding(
            code=code, severity="note", guest=self.guest.name, sentence=sentence, evidence=evidence, mend=mend
        )


def _is_memory(mapping: Mapping) -> bool:
    """Not what is reserved and never touched, and not the gigabyte into which QEMU translates code (TCG)."""
    return mapping.size_bytes >= LARGE_BYTES and "wr" in mapping.flags and "ex" not in mapping.flags
