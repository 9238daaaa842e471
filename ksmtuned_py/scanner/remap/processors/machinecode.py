"""Puts machine code together for one place in a guest's memory. Pure."""


class MachineCode:
    """Machine code that addresses data relative to the instruction, so that no register is needed for it."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.bytes = bytearray()

    @property
    def here(self) -> int:
        """The address of the next instruction."""
        return self.address + len(self.bytes)
