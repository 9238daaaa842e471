"""The few A64 instructions that we need, as machine code (Arm Architecture Reference Manual, C6). Pure."""

from ksmtuned_py.scanner.remap.processors.machinecode import MachineCode

SVC = 0xD4000001
"""svc 0: a system call."""


class Code(MachineCode):
    """Machine code of A64 instructions."""

    def word(self, *parts: int) -> None:
        """One instruction, from its parts."""
        self.bytes += sum(parts).to_bytes(4, "little")

    def load(self, register: int, target: int) -> None:
        """ldr x, target"""
        self.word(0x58000000, _field((target - self.here) // 4, 19, 5), register)

    def address_of(self, register: int, target: int) -> None:
        """adr x, target"""
        distance = target - self.here
        self.word(0x10000000, (distance & 3) << 29, _field(distance >> 2, 19, 5), register)

    def number(self, register: int, value: int) -> None:
        """mov x, value, of at most 32 bits"""
        self.word(0xD2800000, (value & 0xFFFF) << 5, register)
        if value >> 16:
            self.word(0xF2A00000, (value >> 16) << 5, register)

    def load_at(self, register: int, base: int, offset: int) -> None:
        """ldr x, [base, offset]"""
        self.word(0xF9400000, offset // 8 << 10, base << 5, register)

    def load_half_at(self, register: int, base: int, offset: int) -> None:
        """ldr w, [base, offset]"""
        self.word(0xB9400000, offset // 4 << 10, base << 5, register)

    def store_at(self, register: int, base: int, offset: int) -> None:
        """str x, [base, offset]"""
        self.word(0xF9000000, offset // 8 << 10, base << 5, register)

    def branch(self, target: int) -> None:
        """b target"""
        self.word(0x14000000, _field((target - self.here) // 4, 26, 0))

    def skip(self, instruction: int) -> int:
        """Appends a conditional branch forward; returns the place with which `land` completes it."""
        self.word(instruction)
        return len(self.bytes) - 4

    def land(self, at: int) -> None:
        """Makes the branch at that place lead to here."""
        instruction = int.from_bytes(self.bytes[at : at + 4], "little")
        self.bytes[at : at + 4] = (instruction | _field((len(self.bytes) - at) // 4, 19, 5)).to_bytes(4, "little")

    def syscall(self, number: int) -> None:
        """svc, with that system call number"""
        self.number(8, number)
        self.word(SVC)


def _field(value: int, bits: int, position: int) -> int:
    """Returns a signed number as a field of an instruction."""
    assert -(1 << bits - 1) <= value < 1 << bits - 1
    return (value & (1 << bits) - 1) << position
