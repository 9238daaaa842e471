"""The piece of memory that we share with a remapped guest: the code its threads run for us, and its data."""

import fcntl
import mmap
import os
import secrets
import struct
from dataclasses import dataclass

from ksmtuned_py.scanner.remap.processors.architecture import MACHINE, Context
from ksmtuned_py.scanner.remap.processors.layout import END, OPERATION, LineHeader
from ksmtuned_py.scanner.remap.refuse.numa import MOST_NODES
from ksmtuned_py.scanner.remap.stop.threads import MOST_THREADS, Lost

AREA_NAME = "ksmtuned-py-area"
_SLOTS = MOST_THREADS + 1
_CODE_STRIDE, _DATA_STRIDE = 512, MACHINE.SLOT_BYTES
CODE_BYTES = _SLOTS * _CODE_STRIDE
HEADER_BYTES = 4096
_VECTOR = HEADER_BYTES + _SLOTS * _DATA_STRIDE
VECTOR_BYTES = 4096
"""One byte for each page of a run, for mincore."""
_OPERATIONS = _VECTOR + VECTOR_BYTES
MOST_OPERATIONS = 1024
_MOST_ERRNO = 4095
AREA_BYTES = (CODE_BYTES + _OPERATIONS + MOST_OPERATIONS * OPERATION.size + 4095) & ~4095
_GATE, _LINE, _BYTE, _FIRST, _NONCE, _STORE, _STAGE, _FILES, _NODES = 0, 8, 16, 24, 32, 48, 56, 72, 104
NOTES = _STORE
"""From this offset to its end, the header is for whoever comes after us."""
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
Operation = tuple[int, tuple[int, ...], int, int]
"""A system call's number, its arguments, and the indices of the operations after success and after failure."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a worker that was killed has left in a guest."""

    line: int
    store: int
    stage: tuple[int, int]
    line_key: tuple[int, int]
    store_key: tuple[int, int]
    gate_is_shut: bool

    @classmethod
    def parse(cls, header: bytes) -> "Left":
        line, store = (struct.unpack_from("=Q", header, at)[0] for at in (_LINE, _STORE))
        keys = struct.unpack_from("=4Q", header, _FILES)
        shut = bool(struct.unpack_from("=I", header, _GATE)[0])
        return cls(line, store, struct.unpack_from("=QQ", header, _STAGE), keys[:2], keys[2:], shut)


class Area:
    """Our view of the area; addresses are the guest's. Slot 0 is for the thread that works for us, others wait."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create(AREA_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, AREA_BYTES)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, SEALS)
        self._memory = mmap.mmap(self.descriptor, AREA_BYTES)
        self.nonce = secrets.token_bytes(16)
        self._put(_NONCE, self.nonce)
        self.address = 0
        self._write_code()

    def note_place(self, address: int, line: int, store: int) -> None:
        """Notes where the guest has mapped the area, and the guest's numbers of its files."""
        self.address = address
        self._put(_LINE, struct.pack("=Q", line))
        self._put(_STORE, struct.pack("=Q", store))

    def code(self, slot: int) -> int:
        """Returns the address to which the thread with this slot goes."""
        return self.address + slot * _CODE_STRIDE

    def contains(self, address: int) -> bool:
        """Whether the address of an instruction is in the area."""
        return self.address <= address < self.address + CODE_BYTES

    @property
    def nonce_address(self) -> int:
        return self.address + CODE_BYTES + _NONCE

    @property
    def nodes_address(self) -> int:
        return self.address + CODE_BYTES + _NODES

    @property
    def vector_address(self) -> int:
        return self.address + CODE_BYTES + _VECTOR

    def keep(self, slot: int, context: Context, mask: int) -> None:
        """Writes what the slot's thread needs to go on by itself."""
        self._put(HEADER_BYTES + slot * _DATA_STRIDE, context.slot_data(mask))

    def shut_gate(self, *, shut: bool) -> None:
        """Shuts or opens the gate. If we are killed while it is shut, only the thread of slot 0 runs on."""
        self._put(_GATE, struct.pack("=I", shut))

    def stage(self, address: int, size: int) -> None:
        """Notes memory that we have made in the guest, for whoever cleans up after us."""
        self._put(_STAGE, struct.pack("=QQ", address, size))

    def note_files(self, *keys: int) -> None:
        """Notes which files our descriptors in the guest are: device and inode of line and store."""
        self._put(_FILES, struct.pack("=4Q", *keys))

    def put_nodes(self, nodes: int) -> None:
        """Writes the mask of NUMA nodes for mbind."""
        self._put(_NODES, nodes.to_bytes(MOST_NODES // 8, "little"))

    def table(self, operations: list[Operation]) -> None:
        """Writes the operations to run next."""
        packed = []
        for number, arguments, success, failure in operations:
            six = (*arguments, *([0] * (6 - len(arguments))))
            packed.append(OPERATION.pack(number, *(value % 2**64 for value in six), 0, success, failure))
        self._put(_OPERATIONS, b"".join(packed))
        self._put(_FIRST, struct.pack("=q", 0 if operations else END))

    def result(self, operation: int) -> int:
        """Returns what an operation has returned; a negative value is an errno. The guest can write anything there."""
        begin = CODE_BYTES + _OPERATIONS + operation * OPERATION.size
        value: int = OPERATION.unpack_from(self._memory, begin)[7]
        found = value - 2**64 if value >= 2**63 else value
        if found < -_MOST_ERRNO:
            raise Lost("it says that a system call has returned what none returns")
        return found

    def close_descriptor(self) -> None:
        """Closes the descriptor, once the guest has mapped the area."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def close(self) -> None:
        """Closes our view; the guest keeps its own."""
        self._memory.close()
        self.close_descriptor()

    def _write_code(self) -> None:
        """Writes the code, which fits any address, before the guest maps it: see arm64.py on instruction caches."""
        data = CODE_BYTES
        header = LineHeader(data + _GATE, data + _LINE, data + _BYTE, data + _FIRST, data + _OPERATIONS)
        for slot in range(_SLOTS):
            place, kept = slot * _CODE_STRIDE, CODE_BYTES + HEADER_BYTES + slot * _DATA_STRIDE
            code = MACHINE.park(place, kept, header.gate) if slot else MACHINE.serve(place, kept, header)
            assert len(code) <= _CODE_STRIDE
            self._memory[place : place + len(code)] = code

    def _put(self, offset: int, data: bytes) -> None:
        begin = CODE_BYTES + offset
        self._memory[begin : begin + len(data)] = data
