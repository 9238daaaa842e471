"""One stopped thread: what it was at, and why it must not be moved."""

import errno
from dataclasses import dataclass
from functools import partial

from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.processors.architecture import MACHINE, Context
from ksmtuned_py.scanner.remap.stop import ptrace, system

DISPATCHES = "it has system calls sent to a handler of its own (syscall user dispatch)"


@dataclass(slots=True)
class Thread:
    """A stopped thread as it was found."""

    number: int
    context: Context
    mask: int
    moved: bool = False
    """Whether its registers are not its own at the moment."""
    ran: bool = False
    """Whether it has run with registers that are not its own."""
    stands: bool = False
    """Whether it has stopped by itself since it was resumed."""


def look(process: Process, number: int) -> Thread:
    """Looks at a stopped thread of the process; raises Refused for one that must not be moved."""
    memory = partial(_memory, process)
    try:
        context = MACHINE.context_of(partial(ptrace.registers, number), memory)
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            raise Refused("it runs 32-bit code") from None
        raise
    if context.refusal:
        raise Refused(context.refusal)
    pointer = ptrace.restartable_sequence(number)
    if pointer and any(memory(pointer, 8)):
        raise Refused("one of its threads is in a restartable sequence")
    if ptrace.dispatches_itself(number):
        raise Refused(DISPATCHES)
    if not system.has_same_files(process.target.pid, number):
        raise Refused("one of its threads has open files of its own")
    return Thread(number, context, ptrace.signal_mask(number))


def _memory(process: Process, address: int, size: int) -> bytes:
    """Reads the guest's memory; zeros where nothing is mapped."""
    found = bytearray(size)
    process.read([memoryview(found)], address)
    return bytes(found)
