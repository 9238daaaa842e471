"""One guest with all that the checks need to know of it. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from ksmtuned_py.config.doctor import Code
from ksmtuned_py.doctor.finding import NOTHING_READ, Facts, Finding, Seen
from ksmtuned_py.guests.smaps import Smap
from ksmtuned_py.model import Guest, GuestKsm, Snapshot
from ksmtuned_py.units import MIB

LARGE_BYTES = 16 * MIB
"""The least size of a guest's memory. Smaller mappings are libraries, heaps and ROMs."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A guest with the facts about it and about its host."""

    facts: Facts
    now: Snapshot
    guest: Guest

    @property
    def seen(self) -> Seen:
        """The facts that were read of the guest."""
        return self.facts.seen.get(self.guest.pid, NOTHING_READ)

    @property
    def ksm(self) -> GuestKsm | None:
        """The guest's account; None when it cannot be read."""
        return self.guest.ksm

    @property
    def merged_pages(self) -> int:
        """The guest's pages that are merged with others, or with the zero page."""
        return self.ksm.merging_pages + self.ksm.zero_pages if self.ksm else 0

    def has(self, obstacle: str) -> bool:
        """Whether the guest's domain or its command line has this obstacle."""
        return obstacle in self.guest.obstacles or obstacle in self.seen.obstacles

    def large(self, wanted: Callable[[Smap], bool]) -> list[Smap]:
        """The large mappings of the guest's memory for which `wanted` is true."""
        return [each for each in self.seen.mappings if _is_memory(each) and wanted(each)]

    def large_bytes(self, wanted: Callable[[Smap], bool]) -> int:
        """The total size of the large mappings for which `wanted` is true."""
        return sum(each.size_bytes for each in self.large(wanted))

    def finding(self, code: Code, sentence: str, evidence: str, mend: str) -> Finding:
        """A finding about this guest."""
        return Finding(code=code, guest=self.guest.name, sentence=sentence, evidence=evidence, mend=mend)

    def note(self, code: Code, sentence: str, evidence: str, mend: str) -> Finding:
        """A note about this guest, which is no fault."""
        return Finding(
            code=code, severity="note", guest=self.guest.name, sentence=sentence, evidence=evidence, mend=mend
        )


def _is_memory(mapping: Smap) -> bool:
    """Whether a mapping is a guest's memory.

    Memory that is only reserved is not, nor the gigabyte into which QEMU translates code (TCG).
    """
    return mapping.size_bytes >= LARGE_BYTES and "wr" in mapping.flags and "ex" not in mapping.flags
