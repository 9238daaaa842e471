"""Seccomp filters for tests: written by hand, and put on the process or thread that asks for it."""

import ctypes
from collections.abc import Iterable

from ksmtuned_py.scanner.remap.foothold.calls import NATIVE
from ksmtuned_py.scanner.remap.refuse.seccomp import ALLOW, INSTRUCTION, Call

LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
KILL_PROCESS = 0x80000000
NO_SUCH_CALL = 900
"""The number of a system call that is not there, for filters that do no harm."""
_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_libc = ctypes.CDLL(None, use_errno=True)


def assemble(*instructions: tuple[int, int, int, int]) -> bytes:
    """Assembles a program of (code, jump if true, jump if false, constant)."""
    return b"".join(INSTRUCTION.pack(*one) for one in instructions)


def returning(action: int, numbers: Iterable[int]) -> bytes:
    """Returns a filter that ends these system calls so, and allows all others."""
    body = [(JUMP_IF_EQUAL, 0, 1, number) for number in numbers]
    rules = [part for one in body for part in (one, (RETURN, 0, 0, action))]
    return assemble((LOAD, 0, 0, 0), *rules, (RETURN, 0, 0, ALLOW))


def only_as(calls: Iterable[Call]) -> bytes:
    """Returns a filter that kills unless system calls with these numbers have these arguments; it allows all others."""
    calls = tuple(calls)
    allowed = [part for call in calls for part in _allow(call)]
    others = [(JUMP_IF_EQUAL, 0, 1, number) for number in {call.number for call in calls}]
    killed = [part for one in others for part in (one, (RETURN, 0, 0, KILL_PROCESS))]
    return assemble(*allowed, (LOAD, 0, 0, 0), *killed, (RETURN, 0, 0, ALLOW))


def _allow(call: Call) -> list[tuple[int, int, int, int]]:
    known = [(place * 4, word) for place, word in enumerate(call.words(NATIVE)) if word is not None]
    left = 2 * len(known)
    checks = []
    for offset, word in known:
        left -= 2
        checks += [(LOAD, 0, 0, offset), (JUMP_IF_EQUAL, 0, left + 1, word)]
    return [*checks, (RETURN, 0, 0, ALLOW)]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("first", ctypes.c_char_p))


def install(program: bytes) -> None:
    """Installs a filter on the calling thread, and on what it begins from now on."""
    given = _Program(len(program) // INSTRUCTION.size, program)
    assert _libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    done = _libc.prctl(_SET_SECCOMP, _FILTER_MODE, ctypes.byref(given), 0, 0)
    assert done == 0, f"the kernel does not take the filter: errno {ctypes.get_errno()}"
