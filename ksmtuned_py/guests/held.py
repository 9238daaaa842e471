"""A guest with its process, kept by a descriptor as long as there are enough."""

import resource
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace

from ksmtuned_py.guests.process import Process
from ksmtuned_py.model import Guest

SPARE_DESCRIPTORS = 128
"""Left to the rest of the daemon below RLIMIT_NOFILE."""


@dataclass(slots=True)
class Held:
    """A guest, its process, and the numbers of the looks that last asked for and read its account (0: none has)."""

    process: Process
    guest: Guest
    asked_at: int = 0
    read_at: int = 0

    def hold(self) -> None:
        """Without a descriptor (they are short, or it is gone) its files are read by path, and who it is each time."""
        with suppress(OSError):
            self.process.hold()
            if (self.process.descriptor or 0) >= _most_descriptors():
                self.process.close()

    def is_alive(self, page_bytes: int) -> bool:
        """Also takes down how large it is; raises Garbage."""
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


def short_of_descriptors(guests: Collection[Held]) -> list[str]:
    """That there are not enough for all of them, as a sentence."""
    without = sum(held.process.descriptor is None for held in guests)
    if not without:
        return []
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    kept = f"RLIMIT_NOFILE is {limit}, and {SPARE_DESCRIPTORS} are kept spare"
    return [f"{without} of {len(guests)} guests cost more to read: {kept}"]


def _most_descriptors() -> int:
    """Descriptors are numbered from the lowest that is free, so the number tells how many are open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS
