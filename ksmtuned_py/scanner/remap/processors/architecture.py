"""What differs between processors: a thread's registers, and the code that it runs for us. Chosen here, once."""

import os
from collections.abc import Callable
from typing import Protocol

from ksmtuned_py.scanner.remap.processors import amd64, arm64
from ksmtuned_py.scanner.remap.processors.layout import LineHeader

View = Callable[[int, int], bytes]
"""Returns a register set of a stopped thread by number (NT_PRSTATUS) and size; b"" when the processor has none."""
Read = Callable[[int, int], bytes]
"""Returns the guest's memory at an address, of a size in bytes."""


class Context(Protocol):
    """The registers of a stopped thread."""

    @property
    def pc(self) -> int:
        """The address at which the thread goes on."""

    @property
    def refusal(self) -> str | None:
        """Why it cannot be sent elsewhere and find its way back; None when it can."""

    @property
    def suitability(self) -> int:
        """How well the thread can work for us; negative when it cannot at all."""

    def raw(self) -> bytearray:
        """Returns the registers as the register set NT_PRSTATUS."""

    def elsewhere(self, address: int, *call: int) -> "Context":
        """Returns the context with another place to go on at, and a system call's number and arguments if given."""

    def interrupted(self) -> "Context":
        """Returns the context with which it must go on when a signal came while it worked for us elsewhere."""

    def slot_data(self, mask: int) -> bytes:
        """Returns what its slot must hold so that the code there takes it back."""

    def first_data(self, address: int, mask: int) -> bytes:
        """Returns the data of `one_call`, to lie at that address; b"" where there is no way back from there."""


class Processor(Protocol):
    """The module of one processor."""

    @property
    def NR(self) -> dict[str, int]:  # noqa: N802 - as the C library's headers name it
        """System call numbers by name."""

    @property
    def SLOT_BYTES(self) -> int:  # noqa: N802 - a constant of the module
        """Size of a slot's data."""

    @property
    def CALL_BYTES(self) -> int:  # noqa: N802 - a constant of the module
        """Size of `one_call` and its data."""

    @property
    def DATA_AT(self) -> int:  # noqa: N802 - a constant of the module
        """The place of the data within CALL_BYTES."""

    def context_of(self, view: View, read: Read) -> Context:
        """Reads a stopped thread's context."""

    def result(self, view: View) -> int:
        """Returns the result of the system call that the thread has just left."""

    def park(self, address: int, data: int, gate: int) -> bytes:
        """Returns code that waits while the gate is shut, then takes the thread back."""

    def serve(self, address: int, data: int, header: LineHeader) -> bytes:
        """Returns code that runs the table at each byte that arrives; when the line ends, it opens the gate."""

    def one_call(self, address: int, data: int) -> bytes:
        """Returns code that makes one system call with the registers as they are and goes back, in read-only memory."""


MACHINE: Processor = arm64 if os.uname().machine == "aarch64" else amd64
NR = MACHINE.NR
