"""Keeps a guest together with a descriptor on its process, as long as there are enough descriptors."""

import resource
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace

from ksmtuned_py.guests.process import ProcessFiles
from ksmtuned_py.model import Guest

SPARE_DESCRIPTORS = 128
"""Descriptors below RLIMIT_NOFILE that are left to other parts of the daemon."""


@dataclass(slots=True)
class Followed:
    """A guest and its process.

    It has the numbers of the looks that last asked for its account and last read it; 0 is none.
    """

    process: ProcessFiles
    guest: Guest
    asked_at: int = 0
    read_at: int = 0

    def hold(self) -> None:
        """Open a descriptor on the process, unless descriptors are short or the process is gone.

        Without one, its files are read by path, and each time it is checked whose PID that is.
        """
        with suppress(OSError):
            self.process.hold()
            if (self.process.descriptor or 0) >= _most_descriptors():
                self.process.close()

    def is_alive(self, page_bytes: int) -> bool:
        """Check that the process still runs, and note its size; raises Garbage."""
        process = self.process
        if process.descriptor is None:
            self.hold()
            identity = process.identity()
            if identity is None or identity.start_ticks != self.guest.start_ticks:
                return False
        pages = process.sizes_pages()
        if pages:
            virtual_bytes, rss_bytes = (count * page_bytes for count in pages)
            self.guest = replace(self.guest, virtual_bytes=virtual_bytes, rss_bytes=rss_bytes)
        return pages is not None


def short_of_descriptors(guests: Collection[Followed]) -> list[str]:
    """The sentence that there are not enough descriptors for all guests; none when there are."""
    without = sum(followed.process.descriptor is None for followed in guests)
    if not without:
        return []
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    kept = f"RLIMIT_NOFILE is {limit}, and {SPARE_DESCRIPTORS} are kept spare"
    return [f"{without} of {len(guests)} guests cost more to read: {kept}"]


def _most_descriptors() -> int:
    """The first descriptor that is too many. The lowest free number is given out, so it tells how many are open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS
