"""Room: what the host, and a guest's cgroup, could bear if merged memory had to be copied. Pure.

Whoever gives memory back asks the one rule here: a guard, the rules for guests, the end of the daemon, `unmerge`.
"""

from collections.abc import Mapping

from ksmtuned_py.model import Guest, Memory
from ksmtuned_py.units import MIB, human_bytes

RESERVE_BYTES = 256 * MIB
"""Never counted as findable: the host itself needs room while pages are copied."""
CGROUP_RESERVE_BYTES = 16 * MIB
"""Left to a guest below its limit: at the limit its next page would be its end."""


def could_find_bytes(memory: Memory) -> int:
    """What could be found for copies that nobody asked for: available memory and free swap, less the reserve."""
    return max(0, memory.headroom_bytes + memory.swap_free_bytes - RESERVE_BYTES)


def room_bytes(memory: Memory) -> int:
    """What may be given back because somebody wants it: no swap, for nobody is to be pushed out by that."""
    return max(0, memory.headroom_bytes - RESERVE_BYTES)


def lack(needed_bytes: int, memory: Memory) -> str | None:
    """What the host lacks to copy so much, as a sentence; None when it has the room."""
    found = room_bytes(memory)
    if needed_bytes <= found:
        return None
    return f"it needs {human_bytes(needed_bytes)} and the host has {human_bytes(found)}"


def limit_lack(needed_bytes: int, limit_bytes: int | None) -> str | None:
    """What a guest's cgroup lacks, which lets it take so much on top (None: no limit); None when it has the room."""
    if not needed_bytes or limit_bytes is None or needed_bytes <= limit_bytes - CGROUP_RESERVE_BYTES:
        return None
    return f"it needs {human_bytes(needed_bytes)} and its cgroup's limit leaves {human_bytes(limit_bytes)}"


def guest_lack(needed_bytes: int, memory: Memory, limit_bytes: int | None) -> str | None:
    """What the host or the guest's cgroup lacks; None when both have the room."""
    return limit_lack(needed_bytes, limit_bytes) or lack(needed_bytes, memory)


def all_lack(needed_bytes: int, needs: Mapping[Guest, int], memory: Memory) -> str | None:
    """What the host lacks for so much of its own, or a guest for so much on top; None when there is room.

    What a guest takes on top may have been charged to another before.
    """
    for guest, bytes_on_top in needs.items():
        if problem := limit_lack(bytes_on_top, guest.room_bytes):
            return f"guest {guest.name}: {problem}"
    return lack(needed_bytes, memory)


def merged_bytes(guest: Guest, page_bytes: int) -> int:
    """What the guest would take on top if all its merged pages were its own."""
    return (guest.ksm.merging_pages + max(0, guest.ksm.zero_pages)) * page_bytes if guest.ksm else 0
