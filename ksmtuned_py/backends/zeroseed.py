"""Has ksmd give back huge pages of zeros all at once: by itself it gives back one in each of its passes.

ksmd keeps the first page of zeros that it meets in a pass, to compare others with. The next one of the same huge page
has it split that page, and what it compared with is gone until the next pass. Merged pages stay to be compared with. So
a few small pages of zeros that merge with each other are enough. They must be the first that ksmd meets. It comes first
to who asked first, or has asked while it was at the first process of a pass.

With nothing to scan ksmd sleeps, though it may run. With these pages alone it would begin a pass at each waking, for
which each processor of the host has to hand in its new pages. So there are none while it runs and there is no guest.

Measured on Linux 6.18 with four processes and 128 huge pages of zeros: ten passes split nine of them. With these pages
the second pass split all (see `mm/ksm.c`, unstable tree).
"""

import mmap
from contextlib import suppress

from ksmtuned_py.model import Run, Snapshot
from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES

PAGES = 4
"""Two would do."""


class ZeroSeed:
    """These pages, in this process."""

    def __init__(self) -> None:
        """Begin without any."""
        self._memory: mmap.mmap | None = None
        self._passes: int | None = None
        """How many passes there were at the last look, while ksmd scanned guests; -1 while it ran without any."""

    @property
    def is_held(self) -> bool:
        """Whether there are any."""
        return self._memory is not None

    def consider(self, now: Snapshot, *, wanted: bool) -> None:
        """Have them from the moment on at which ksmd comes to them first, as long as they are wanted."""
        scans = now.knobs.run == Run.MERGE
        passes = (now.counters.full_scans if now.guests else -1) if scans else None
        turned = passes is not None and self._passes is not None and passes > self._passes
        self._passes = passes
        if not wanted or (scans and not now.guests):
            self.close()
        elif self._memory is None and (turned or not now.guests):
            self._memory = _pages_of_zeros()

    def close(self) -> None:
        """Give them up. ksmd forgets them in its next pass."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None


def _pages_of_zeros() -> mmap.mmap:
    memory = mmap.mmap(-1, PAGES * OWN_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for advice in (mmap.MADV_NOHUGEPAGE, mmap.MADV_DONTFORK, mmap.MADV_MERGEABLE):
        with suppress(OSError):  # a kernel without it has no use for them, or does no harm to them
            memory.madvise(advice)
    for page in range(PAGES):
        memory[page * OWN_PAGE_BYTES] = 0  # a page of its own, and not the kernel's
    return memory
