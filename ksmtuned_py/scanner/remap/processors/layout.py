"""The table of system calls that a guest's thread runs for us; it is alike on every machine. Pure."""

import struct
from dataclasses import dataclass

OPERATION = struct.Struct("=8Qii")
"""Number, six arguments, result, and the operation that follows success and failure; -1 is the end."""
END = -1
ASLEEP = 2
"""The suitability of a thread that sleeps: nobody notices that it comes back last."""


@dataclass(frozen=True, slots=True)
class LineHeader:
    """Addresses, in the guest, of what all slots share."""

    gate: int
    line: int
    """The guest's number of the socket."""
    byte: int
    first: int
    operations: int
