"""Checks how else memory comes back: what guests hand back, and what the scan backend needs for zeros. Pure."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ksmtuned_py.doctor.finding import NOTHING_READ, Facts, Finding
from ksmtuned_py.doctor.mends import ZRAM
from ksmtuned_py.model import Guest

if TYPE_CHECKING:
    from ksmtuned_py.config.doctor import Code

REPORTING_ON = {
    "qemu": "<memballoon model='virtio' freePageReporting='on'/> in its domain's XML, or for QEMU alone -device "
    "virtio-balloon-pci,free-page-reporting=on; then start it anew",
    "cloud-hypervisor": "--balloon size=0,free_page_reporting=on, then start it anew",
}


def free_memory(facts: Facts, guest: Guest) -> Iterator[Finding]:
    """Note how a guest's free memory comes back.

    Free page reporting costs the host nothing and needs no swap. So it is better than looking for zeros from outside.
    """
    balloon = facts.seen.get(guest.pid, NOTHING_READ).balloon
    if balloon is None:
        return
    code: Code
    if balloon.reports_free_pages:
        code, mend = "reports_free_pages", 'none: this is better than reclaim = "zero", which leaves this guest alone'
        sentence = "memory that it frees comes back to the host by itself"
        seen = "free page reporting is on"
    elif balloon.present:
        code, mend = "no_free_page_reporting", REPORTING_ON[guest.kind]
        sentence = "memory that it frees comes back only when somebody inflates its balloon"
        seen = "a balloon without free page reporting"
    else:
        code, mend = "no_balloon", REPORTING_ON[guest.kind]
        sentence = "memory that it frees does not come back to the host by itself, unless a balloon was added since"
        seen = "no balloon" + (", virtio-mem alone" if balloon.pluggable else "")
    evidence = f"{seen} in /proc/{guest.pid}/cmdline"
    yield Finding(code=code, severity="note", guest=guest.name, sentence=sentence, evidence=evidence, mend=mend)


def zeros_refused(facts: Facts) -> Iterator[Finding]:
    """Find that pages of zeros cannot be given back. They go to swap, which takes no space in zram."""
    if facts.zeros_refused:
        yield Finding(
            code="zeros_refused",
            sentence="the scan backend cannot give pages of zeros back",
            evidence=facts.zeros_refused,
            mend=f"set up zram (packaging/zram.md): {ZRAM}",
        )
