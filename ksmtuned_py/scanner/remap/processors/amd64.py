"""X86-64: the code that a stopped thread runs on our behalf, and how its registers are kept and changed. Pure.

Every thread has a slot: code, and at a fixed distance behind it data, with all its registers as they were. Whatever
happens to us, the code ends by itself in `finish`. It loads the registers from the slot and jumps back to where the
thread was. It uses neither the thread's stack nor its vector registers.

Sources: the psABI for the system call registers, arch/x86/kernel/signal.c for the restarting of system calls.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from ksmtuned_py.scanner.remap.processors.layout import ASLEEP, OPERATION, LineHeader
from ksmtuned_py.scanner.remap.processors.machinecode import MachineCode

REGISTERS = struct.Struct("=27Q")
_NAMES = (  # noqa: SIM905 - as they stand in struct user_regs_struct
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi "
    "orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
).split()
_AT = {name: index for index, name in enumerate(_NAMES)}
_NT_PRSTATUS = 1
_CODE_64 = 0x33
"""The code segment of 64-bit programs; a thread with any other one is refused."""
_STEPPED = 0x100
"""The trap flag: each instruction ends with a SIGTRAP. Ours would, too, and kill a guest whose signals we block."""
_NO_SYSCALL = 2**64 - 1
_SYSCALL_LENGTH = 2
_INT_80 = b"\xcd\x80"
_ERESTARTSYS, _ERESTARTNOINTR, _ERESTARTNOHAND, _ERESTART_RESTARTBLOCK = (2**64 - n for n in (512, 513, 514, 516))
_RESTARTS = (_ERESTARTSYS, _ERESTARTNOINTR, _ERESTARTNOHAND, _ERESTART_RESTARTBLOCK)
_EINTR = 2**64 - 4

NR = {
    "mmap": 9, "mprotect": 10, "munmap": 11, "rt_sigprocmask": 14, "pread64": 17, "mremap": 25, "mincore": 27,
    "madvise": 28, "sendto": 44, "recvfrom": 45, "recvmsg": 47, "socketpair": 53, "close": 3, "rt_sigpending": 127,
    "futex": 202, "restart_syscall": 219, "mbind": 237,
}  # fmt: skip

# The data of a slot, by offset:
_SAVED = ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rax")
_SLOT = {name: index * 8 for index, name in enumerate((*_SAVED, "rsp", "eflags", "rip"))}
_MASK, _PENDING, _ALT_RAX, _ALT_RIP = 144, 152, 160, 168
SLOT_DATA = struct.Struct("=22Q")
SLOT_BYTES = 256
CALL_BYTES, DATA_AT = 512, 256
"""Bytes that `one_call` and its data take, and where in them the data begins."""
_CALL_REGISTERS = ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9")
_NUMBER = {
    "rax": 0, "rcx": 1, "rdx": 2, "rbx": 3, "rsp": 4, "rbp": 5, "rsi": 6, "rdi": 7,
    "r8": 8, "r9": 9, "r10": 10, "r11": 11, "r12": 12, "r13": 13, "r14": 14, "r15": 15,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Amd64Context:
    """All general registers of a stopped thread."""

    values: tuple[int, ...]
    narrow: bool = False
    """Whether it was stopped in a system call of 32-bit programs (int 0x80), whose numbers are others."""

    @classmethod
    def of(cls, raw: bytearray) -> "Amd64Context":
        return cls(REGISTERS.unpack(raw))

    def __getitem__(self, name: str) -> int:
        return self.values[_AT[name]]

    @property
    def pc(self) -> int:
        return self["rip"]

    @property
    def refusal(self) -> str | None:
        if self["cs"] != _CODE_64:
            return "it runs 32-bit code"
        if self["eflags"] & _STEPPED:
            return "one of its threads has itself stopped after each instruction"
        return "one of its threads makes 32-bit system calls" if self.narrow else None

    @property
    def suitability(self) -> int:
        """How well the thread can work for us: best is one that sleeps in a system call, and is not missed."""
        return (ASLEEP if self["rax"] in _RESTARTS else 1) if self.in_syscall else 0

    def raw(self) -> bytearray:
        return bytearray(REGISTERS.pack(*self.values))

    def elsewhere(self, address: int, *call: int) -> "Amd64Context":
        """Returns the registers with another place to go on at; the kernel then begins no interrupted call again."""
        changed = list(self.values)
        changed[_AT["orig_rax"]], changed[_AT["rip"]] = _NO_SYSCALL, address
        for name, value in zip(_CALL_REGISTERS, call, strict=False):
            changed[_AT[name]] = value % 2**64
        return Amd64Context(tuple(changed))

    def interrupted(self) -> "Amd64Context":
        """Returns the registers unchanged: the kernel restarts or ends an interrupted system call by itself."""
        return self

    @property
    def in_syscall(self) -> bool:
        """Whether it was stopped on its way out of a system call."""
        return self["orig_rax"] < 2**63  # it is -1 otherwise

    def slot_data(self, mask: int) -> bytes:
        """Returns what the thread's slot must hold so that `finish` takes it back to here."""
        rip, rax = self["rip"], self["rax"]
        alt_rip, alt_rax = rip, rax
        if self.in_syscall and rax in _RESTARTS:
            rip -= _SYSCALL_LENGTH
            rax = NR["restart_syscall"] if rax == _ERESTART_RESTARTBLOCK else self["orig_rax"]
            if self["rax"] == _ERESTARTNOINTR:
                alt_rip, alt_rax = rip, rax
            else:
                alt_rax = _EINTR
        saved = [rax if name == "rax" else self[name] for name in _SAVED]
        return SLOT_DATA.pack(*saved, self["rsp"], self["eflags"], rip, mask, 0, alt_rax, alt_rip)

    def first_data(self, address: int, mask: int) -> bytes:  # noqa: ARG002 - the way back from anywhere is the same
        return self.slot_data(mask)


def context_of(view: Callable[[int, int], bytes], read: Callable[[int, int], bytes]) -> Amd64Context:
    """Reads a stopped thread's context."""
    found = Amd64Context.of(bytearray(view(_NT_PRSTATUS, REGISTERS.size)))
    narrow = found.in_syscall and read(found.pc - _SYSCALL_LENGTH, _SYSCALL_LENGTH) == _INT_80
    return Amd64Context(found.values, narrow)


def result(view: Callable[[int, int], bytes]) -> int:
    """Returns the result of the system call that the thread has just left."""
    return Amd64Context.of(bytearray(view(_NT_PRSTATUS, REGISTERS.size)))["rax"]


class _Code(MachineCode):
    """Machine code of x86-64 instructions."""

    def raw(self, text: str) -> None:
        self.bytes += bytes.fromhex(text)

    def relative(self, text: str, target: int, tail: str = "") -> None:
        """Appends an instruction whose 32-bit operand is the distance from its end to the target."""
        self.raw(text)
        end = self.here + 4 + len(bytes.fromhex(tail))
        self.bytes += struct.pack("<i", target - end)
        self.raw(tail)

    def load(self, register: str, target: int) -> None:
        """mov register, [target]"""
        number = _NUMBER[register]
        self.relative(f"{0x48 | (number >> 3) << 2:02x} 8b {0x05 | (number & 7) << 3:02x}", target)

    def store(self, register: str, target: int) -> None:
        """mov [target], register"""
        number = _NUMBER[register]
        self.relative(f"{0x48 | (number >> 3) << 2:02x} 89 {0x05 | (number & 7) << 3:02x}", target)

    def address_of(self, register: str, target: int) -> None:
        """lea register, [target]"""
        number = _NUMBER[register]
        self.relative(f"{0x48 | (number >> 3) << 2:02x} 8d {0x05 | (number & 7) << 3:02x}", target)

    def number(self, register: str, value: int) -> None:
        """mov register (32 bit), value: leaves the flags alone"""
        number = _NUMBER[register]
        self.raw(("41 " if number > 7 else "") + f"{0xB8 | number & 7:02x}")
        self.bytes += struct.pack("<I", value)

    def syscall(self, name: str) -> None:
        self.number("rax", NR[name])
        self.raw("0f 05")

    def jump(self, target: int) -> None:
        self.relative("e9", target)

    def finish(self, data: int, *, writable: bool) -> None:
        """Takes the thread back to where it was: flags, signal mask, registers and a jump, all from the slot's data."""
        if writable:
            self._interrupted_by_signal(data)
        self.address_of("rsp", data + _SLOT["eflags"])
        self.raw("9d")  # popfq; from here on nothing changes the flags
        self.load("rsp", data + _SLOT["rsp"])
        self.number("rdi", 2)  # SIG_SETMASK
        self.address_of("rsi", data + _MASK)
        self.number("rdx", 0)
        self.number("r10", 8)
        self.syscall("rt_sigprocmask")
        for name in _SAVED:
            self.load(name, data + _SLOT[name])
        self.relative("ff 25", data + _SLOT["rip"])  # jmp [rip]

    def _interrupted_by_signal(self, data: int) -> None:
        """Ends an interrupted system call with EINTR, instead of beginning it again, when a signal waits."""
        self.address_of("rdi", data + _PENDING)
        self.number("rsi", 8)
        self.syscall("rt_sigpending")
        self.load("rax", data + _PENDING)
        self.load("rcx", data + _MASK)
        self.raw("48 f7 d1  48 21 c8")  # not rcx; and rax, rcx
        body = _Code(self.here + 2)
        for source, target in ((_ALT_RAX, "rax"), (_ALT_RIP, "rip")):
            body.load("rax", data + source)
            body.store("rax", data + _SLOT[target])
        self.raw(f"74 {len(body.bytes):02x}")  # jz past it
        self.bytes += body.bytes


def park(address: int, data: int, gate: int) -> bytes:
    """Returns code that waits while the gate is shut, then finishes."""
    code = _Code(address)
    code.relative("83 3d", gate, "00")  # cmp dword [gate], 0
    wait = _Code(code.here + 2)
    wait.address_of("rdi", gate)
    wait.number("rsi", 0)  # FUTEX_WAIT
    wait.number("rdx", 1)  # while it is 1
    wait.number("r10", 0)  # for ever: a time-out would change the thread's restart block
    wait.syscall("futex")
    wait.jump(address)
    code.raw(f"74 {len(wait.bytes):02x}")  # je finish
    code.bytes += wait.bytes
    code.finish(data, writable=True)
    return bytes(code.bytes)


def serve(address: int, data: int, header: LineHeader) -> bytes:
    """Returns code that runs the table whenever a byte arrives; when the line ends, it opens the gate and finishes."""
    code = _Code(address)
    _ask(code, header)
    code.raw("48 83 f8 01")  # cmp rax, 1
    run = _run(code.here + 6, address, header)
    code.relative("0f 85", code.here + 6 + len(run))  # jne: the line is closed
    code.bytes += run
    code.relative("c7 05", header.gate, "00000000")  # mov dword [gate], 0
    code.address_of("rdi", header.gate)
    code.number("rsi", 1)  # FUTEX_WAKE
    code.number("rdx", 0x7FFFFFFF)
    code.syscall("futex")
    code.finish(data, writable=True)
    return bytes(code.bytes)


def _ask(code: _Code, header: LineHeader) -> None:
    code.load("rdi", header.line)
    code.address_of("rsi", header.byte)
    for register, value in (("rdx", 1), ("r10", 0), ("r8", 0), ("r9", 0)):
        code.number(register, value)
    code.syscall("recvfrom")


def _run(address: int, again: int, header: LineHeader) -> bytes:
    code = _Code(address)
    code.load("rbx", header.first)
    top = code.here
    code.raw("83 fb ff")  # cmp ebx, END
    step = _Code(code.here + 2)
    step.raw(f"48 6b eb {OPERATION.size:02x}")  # imul rbp, rbx, size
    step.address_of("rcx", header.operations)
    step.raw("48 01 cd")  # add rbp, rcx
    step.raw("48 8b 45 00  48 8b 7d 08  48 8b 75 10  48 8b 55 18")  # rax, rdi, rsi, rdx
    step.raw("4c 8b 55 20  4c 8b 45 28  4c 8b 4d 30")  # r10, r8, r9
    step.raw("0f 05  48 89 45 38")  # syscall; mov [result], rax
    step.raw("8b 5d 40")  # mov ebx, [after success]
    step.raw("48 3d 01 f0 ff ff")  # cmp rax, -4095
    step.raw("72 03  8b 5d 44")  # jb over; mov ebx, [after failure]
    step.jump(top)
    code.raw(f"74 {len(step.bytes):02x}")  # je reply
    code.bytes += step.bytes
    code.load("rdi", header.line)
    code.address_of("rsi", header.byte)
    for register, value in (("rdx", 1), ("r10", 0x4000), ("r8", 0), ("r9", 0)):  # MSG_NOSIGNAL
        code.number(register, value)
    code.syscall("sendto")
    code.jump(again)
    return bytes(code.bytes)


def one_call(address: int, data: int) -> bytes:
    """Returns code that makes one system call with the registers as they are, then finishes; for read-only memory."""
    code = _Code(address)
    code.raw("0f 05")
    code.finish(data, writable=False)
    return bytes(code.bytes)
