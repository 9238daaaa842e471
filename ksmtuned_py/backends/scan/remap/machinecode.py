"""PURE: machine code that is put together for one place in a guest's memory."""


class MachineCode:
    """Data is addressed relative to the instruction, so that no register is needed for it."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.bytes = bytearray()

    @property
    def here(self) -> int:
        """Where the next instruction goes."""
        return self.address + len(self.bytes)
