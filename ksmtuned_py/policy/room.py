"""What the host could find if merged memory had to be given back. Pure."""

from ksmtuned_py.model import Memory
from ksmtuned_py.units import MIB

RESERVE_BYTES = 256 * MIB
"""Never counted as findable: the host itself needs room while pages are copied."""


def could_find_bytes(memory: Memory) -> int:
    """Available memory and free swap, less the reserve."""
    return max(0, memory.headroom_bytes + memory.swap_free_bytes - RESERVE_BYTES)
