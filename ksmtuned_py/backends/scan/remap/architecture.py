"""What differs between processors: a thread's registers, and the code that it runs for us. Chosen here, once."""

import os
from collections.abc import Callable
from typing import Protocol

from ksmtuned_py.backends.scan.remap import amd64, arm64
from ksmtuned_py.backends.scan.remap.layout import Header

View = Callable[[int, int], bytes]
"""A register set of a stopped thread, by its number (NT_PRSTATUS) and size; b"" when the processor has none."""
Read = Callable[[int, int], bytes]
"""The guest's memory, by address and size."""


class Context(Protocol):
    """The registers of a stopped thread."""

    @property
    def pc(self) -> int:
        """Where it goes on."""

    @property
    def refusal(self) -> str:
        """Why it cannot be sent elsewhere and find its way back; ''."""

    @property
    def suitability(self) -> int:
        """How well it can work for us; negative when it cannot at all."""

    def raw(self) -> bytearray:
        """For the register set NT_PRSTATUS."""

    def elsewhere(self, address: int, *call: int) -> "Context":
        """With another place to go on at, and with a system call's number and arguments, if given."""

    def interrupted(self) -> "Context":
        """As it must go on when a signal came while it was elsewhere and worked for us."""

    def slot_data(self, mask: int) -> bytes:
        """What its slot must hold so that the code there takes it back."""

    def first_data(self, address: int, mask: int) -> bytes:
        """The same for `one_call`, to lie at that address; b"" where there is no way back from there."""


class Machine(Protocol):
    """One processor's module."""

    @property
    def NR(self) -> dict[str, int]:  # noqa: N802 - as the C library's headers name it
        """System call numbers."""

    @property
    def SLOT_BYTES(self) -> int:  # noqa: N802 - a constant of the module
        """Of a slot's data."""

    @property
    def ROOM(self) -> int:  # noqa: N802 - a constant of the module
        """For `one_call` and its data."""

    @property
    def DATA_AT(self) -> int:  # noqa: N802 - a constant of the module
        """Where in that room its data begins."""

    def look(self, view: View, read: Read) -> Context:
        """A stopped thread's context."""

    def result(self, view: View) -> int:
        """What the system call that it has just left returned."""

    def park(self, address: int, data: int, gate: int) -> bytes:
        """Code that waits while the gate is shut, then takes the thread back."""

    def serve(self, address: int, data: int, header: Header) -> bytes:
        """Code that runs the table whenever a byte arrives; at the end of the line opens the gate and goes back."""

    def one_call(self, address: int, data: int) -> bytes:
        """Code that makes one system call with the registers as they are, and goes back; for read-only memory."""


MACHINE: Machine = arm64 if os.uname().machine == "aarch64" else amd64
NR = MACHINE.NR
