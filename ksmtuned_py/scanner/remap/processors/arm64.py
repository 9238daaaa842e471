"""Aarch64: the code that a stopped thread runs on our behalf, and how its registers are kept and changed. Pure.

Slots are as in amd64.py. What differs is the way back. A64 has no jump to an address in memory: it takes a register. A
thread that was stopped anywhere needs all of them. So a slot's data is a signal frame. One rt_sigreturn restores every
register, the signal mask and the program counter in a single step. All signals are blocked until then, because the
stack pointer is the frame's address for the last instructions. What a frame cannot bring back is refused: SVE and SME
registers, which system calls discard; shadow stacks; permission overlays.

The first calls come from the vdso page. It is too small for a frame, but lies near the C library. So the last
instruction there is a plain branch.

arm64 steps back to the system call that it is going to begin again before it stops for a tracer, and does not say so.
So a thread whose next instruction is a system call may be in the middle of it, or just before. The two are treated
alike. The call begins (again), unless a signal waits and the call is one that only waits: then it ends with EINTR. A
sleep for a given time would begin anew, so such a thread never works for us. Only when we are killed it sleeps longer.
After rt_sigreturn, a call that continued a sleep (restart_syscall) ends with EINTR.

The code is position-independent, and written before the guest maps it. The kernel makes instruction caches coherent
when a page is mapped executable first (arch/arm64/mm/flush.c), and at writes through /proc/PID/mem.

Sources: arch/arm64/kernel/signal.c (do_signal, restore_sigframe).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from ksmtuned_py.scanner.remap.processors.a64 import SVC, Code
from ksmtuned_py.scanner.remap.processors.layout import END, OPERATION, LineHeader

_REGISTERS = struct.Struct("=34Q")  # struct user_pt_regs: x0 to x30, sp, pc, pstate
_SP, _PC, _PSTATE = 31, 32, 33
_NT_PRSTATUS, _NT_PRFPREG, _NT_SVE, _NT_SSVE, _NT_POE, _NT_GCS = 1, 2, 0x405, 0x40B, 0x40F, 0x410
_VECTORS_BYTES = 528  # struct user_fpsimd_state: 32 registers, fpsr, fpcr, padding
_SVE_FLAGS_AT = 12  # struct user_sve_header
_BTYPE = 0xC00
"""Bits of pstate: the last instruction was an indirect branch. A guarded page (the vdso's) wants a landing pad then."""
_EINTR = 2**64 - 4

NR = {
    "mmap": 222, "mprotect": 226, "munmap": 215, "rt_sigprocmask": 135, "pread64": 67, "mremap": 216, "mincore": 232,
    "madvise": 233, "sendto": 206, "recvfrom": 207, "recvmsg": 212, "socketpair": 199, "close": 57,
    "rt_sigpending": 136, "futex": 98, "restart_syscall": 128, "rt_sigreturn": 139, "mbind": 235,
}  # fmt: skip
_NANOSLEEP, _CLOCK_NANOSLEEP = 101, 115
_WAITS = {22, 72, 73, 101, 115, 128, 133, 137, 441}
"""epoll_pwait, pselect6, ppoll, both sleeps, restart_syscall, rt_sigsuspend, rt_sigtimedwait, epoll_pwait2."""
_FUTEX_WAIT, _FUTEX_WAIT_BITSET, _FUTEX_COMMAND, _TIMER_ABSTIME = 0, 9, 0x7F, 1

# A slot's data: a struct rt_sigframe. The kernel does not read its first 128 bytes (siginfo), so those are ours.
_PENDING, _EVERY_SIGNAL, _ALT_X0, _ALT_PC = 0, 8, 16, 24
_MASK, _X0_AT, _PC_AT = 168, 312, 568
_OURS = struct.Struct("=4Q96x")
_UCONTEXT = struct.Struct("=QQQi4xQQ120x8x")
"""Flags, link, alternate stack (address, flags, size), signal mask; padded to the aligned struct sigcontext."""
_SIGCONTEXT = struct.Struct("=Q34Q8x")
_VECTORS_HEAD, _FRAME_END = struct.Struct("=IIII"), bytes(16)
_FPSIMD_MAGIC = 0x46508001
_NO_STACK_CHANGE = 4
"""Flags of an alternate stack that do not exist: the kernel then leaves the present one, which we cannot know."""
SLOT_BYTES = 1152

# What `one_call` needs: a branch back, the mask, and the registers that a system call takes.
CALL_BYTES, DATA_AT = 192, 64
_FIRST_MASK, _FIRST_REGISTERS = 8, 16
_CALL_REGISTERS = (0, 1, 2, 3, 4, 5, 8)
_BRANCH_REACH = 1 << 27


@dataclass(frozen=True, slots=True)
class Arm64Context:
    """All general registers of a stopped thread, its vector registers, and whether a system call comes next."""

    values: tuple[int, ...]
    vectors: bytes = bytes(_VECTORS_BYTES)
    at_syscall: bool = False
    refusal: str | None = None

    @property
    def pc(self) -> int:
        return self.values[_PC]

    @property
    def suitability(self) -> int:
        """How well the thread can work for us: best is one that no signal could find before a system call."""
        if not self.at_syscall:
            return 1
        return -1 if self._sleeps_for_a_time else 0

    def raw(self) -> bytearray:
        return bytearray(_REGISTERS.pack(*self.values))

    def elsewhere(self, address: int, *call: int) -> "Arm64Context":
        values = list(self.values)
        values[_PC], values[_PSTATE] = address, values[_PSTATE] & ~_BTYPE
        for register, value in zip((8, 0, 1, 2, 3, 4, 5), call, strict=False):
            values[register] = value % 2**64
        return Arm64Context(tuple(values))

    def interrupted(self) -> "Arm64Context":
        if not self._waits:
            return self
        values = list(self.values)
        values[0], values[_PC] = _EINTR, self.pc + 4
        return Arm64Context(tuple(values))

    def slot_data(self, mask: int) -> bytes:
        """Returns the frame that takes the thread back, and what to change in it when a signal waits."""
        alternative = self.interrupted()
        fpsr, fpcr = struct.unpack_from("=II", self.vectors, 512)
        return b"".join(
            (
                _OURS.pack(0, 2**64 - 1, alternative.values[0], alternative.pc),
                _UCONTEXT.pack(0, 0, 0, _NO_STACK_CHANGE, 0, mask),
                _SIGCONTEXT.pack(0, *self.values),
                _VECTORS_HEAD.pack(_FPSIMD_MAGIC, _VECTORS_BYTES, fpsr, fpcr),
                self.vectors[:512],
                _FRAME_END,
            )
        )

    def first_data(self, address: int, mask: int) -> bytes:
        """Returns the registers that a system call takes, and a direct branch; b"" when that does not reach so far."""
        if not -_BRANCH_REACH <= self.pc - address < _BRANCH_REACH:
            return b""
        code = Code(address)
        code.branch(self.pc)
        return bytes(code.bytes) + struct.pack("=4xQ7Q", mask, *(self.values[number] for number in _CALL_REGISTERS))

    @property
    def _futex_command(self) -> int:
        return self.values[1] & _FUTEX_COMMAND if self.values[8] == NR["futex"] else -1

    @property
    def _waits(self) -> bool:
        """Whether the thread is in, or before, a system call that does nothing but wait."""
        waits = self.values[8] in _WAITS or self._futex_command in (_FUTEX_WAIT, _FUTEX_WAIT_BITSET)
        return self.at_syscall and waits

    @property
    def _sleeps_for_a_time(self) -> bool:
        number, relative = self.values[8], not self.values[1] & _TIMER_ABSTIME
        timed = number == _NANOSLEEP or (number == _CLOCK_NANOSLEEP and relative)
        return timed or (self._futex_command == _FUTEX_WAIT and self.values[3] != 0)


def context_of(view: Callable[[int, int], bytes], read: Callable[[int, int], bytes]) -> Arm64Context:
    """Reads a stopped thread's context, with the reason why it cannot be sent elsewhere, if there is one."""
    values = _REGISTERS.unpack(view(_NT_PRSTATUS, _REGISTERS.size))
    at_syscall = read(values[_PC], 4) == SVC.to_bytes(4, "little")
    return Arm64Context(values, view(_NT_PRFPREG, _VECTORS_BYTES), at_syscall, _refusal(view))


def result(view: Callable[[int, int], bytes]) -> int:
    """Returns the result of the system call that the thread has just left."""
    value: int = _REGISTERS.unpack(view(_NT_PRSTATUS, _REGISTERS.size))[0]
    return value


def _refusal(view: Callable[[int, int], bytes]) -> str | None:
    for note in (_NT_SVE, _NT_SSVE):
        header = view(note, 16)
        if header and header[_SVE_FLAGS_AT] & 1:
            return "one of its threads has values in SVE or SME registers at the moment"
    shadow_stack = view(_NT_GCS, 8)
    if any(shadow_stack):
        return "one of its threads has a shadow stack (GCS)"
    if view(_NT_POE, 8):  # some kernels load garbage when a frame has no record of them
        return "its processor has permission overlays (POE)"
    return None


def _block(code: Code, how: int, mask: int) -> None:
    """Appends a call of rt_sigprocmask."""
    code.number(0, how)
    code.address_of(1, mask)
    code.number(2, 0)
    code.number(3, 8)
    code.syscall(NR["rt_sigprocmask"])


def _finish(code: Code, data: int) -> None:
    """Takes the thread back to where it was, by the signal frame that the data is."""
    _block(code, 0, data + _EVERY_SIGNAL)  # SIG_BLOCK
    _interrupted_by_signal(code, data)
    code.address_of(0, data)
    code.word(0x9100001F)  # mov sp, x0
    code.syscall(NR["rt_sigreturn"])


def _interrupted_by_signal(code: Code, data: int) -> None:
    """Ends a system call that only waits with EINTR when a signal waits."""
    code.address_of(0, data + _PENDING)
    code.number(1, 8)
    code.syscall(NR["rt_sigpending"])
    code.load(0, data + _PENDING)
    code.load(1, data + _MASK)
    code.word(0x8A210000)  # bic x0, x0, x1
    none = code.skip(0xB4000000)  # cbz x0
    code.address_of(0, data)
    for alternative, place in ((_ALT_X0, _X0_AT), (_ALT_PC, _PC_AT)):
        code.load_at(1, 0, alternative)
        code.store_at(1, 0, place)
    code.land(none)


def park(address: int, data: int, gate: int) -> bytes:
    """Returns code that waits while the gate is shut, then finishes."""
    code = Code(address)
    code.address_of(0, gate)
    code.load_half_at(1, 0, 0)
    is_open = code.skip(0x34000001)  # cbz w1
    code.number(1, 0)  # FUTEX_WAIT
    code.number(2, 1)  # while it is 1
    code.number(3, 0)  # for ever
    code.syscall(NR["futex"])
    code.branch(address)
    code.land(is_open)
    _finish(code, data)
    return bytes(code.bytes)


def serve(address: int, data: int, header: LineHeader) -> bytes:
    """Returns code that runs the table whenever a byte arrives; when the line ends, it opens the gate and finishes."""
    code = Code(address)
    _one_byte(code, header, "recvfrom", 0)
    code.word(0xF100041F)  # cmp x0, 1
    closed = code.skip(0x54000001)  # b.ne
    _run(code, header)
    _one_byte(code, header, "sendto", 0x4000)  # MSG_NOSIGNAL
    code.branch(address)
    code.land(closed)
    code.address_of(0, header.gate)
    code.word(0xB900001F)  # str wzr, [x0]
    code.number(1, 1)  # FUTEX_WAKE
    code.number(2, 0x7FFFFFFF)
    code.syscall(NR["futex"])
    _finish(code, data)
    return bytes(code.bytes)


def _one_byte(code: Code, header: LineHeader, name: str, flags: int) -> None:
    code.load(0, header.line)
    code.address_of(1, header.byte)
    for register, value in ((2, 1), (3, flags), (4, 0), (5, 0)):
        code.number(register, value)
    code.syscall(NR[name])


def _run(code: Code, header: LineHeader) -> None:
    """Runs the table: w19 is the operation's index, x20 its address; system calls leave both alone."""
    code.load(19, header.first)
    top = code.here
    assert END == -1
    code.word(0x3100067F)  # cmn w19, 1
    end = code.skip(0x54000000)  # b.eq
    code.number(9, OPERATION.size)
    code.address_of(10, header.operations)
    code.word(0x9B092A74)  # madd x20, x19, x9, x10
    for index, register in enumerate((8, 0, 1, 2, 3, 4, 5)):
        code.load_at(register, 20, index * 8)
    code.word(SVC)
    code.store_at(0, 20, 56)
    code.load_half_at(19, 20, 64)
    code.word(0xB13FFC1F)  # cmn x0, 4095
    success = code.skip(0x54000003)  # b.lo
    code.load_half_at(19, 20, 68)
    code.land(success)
    code.branch(top)
    code.land(end)


def one_call(address: int, data: int) -> bytes:
    """Returns code that makes one system call and goes back; the last step is the branch in the data."""
    code = Code(address)
    code.word(SVC)
    _block(code, 2, data + _FIRST_MASK)  # SIG_SETMASK
    for index, register in enumerate(_CALL_REGISTERS):
        code.load(register, data + _FIRST_REGISTERS + index * 8)
    code.branch(data)
    return bytes(code.bytes)
