"""Finds what a seccomp filter says to a system call of which not everything is known beforehand. Pure.

A filter is a program in classic BPF that only jumps forward. It is run once, in order, with words that are known or not
(None). Where a condition is not known, both ways are followed. So all that it may return is found, and perhaps more.

Sources: seccomp(2); include/uapi/linux/filter.h; kernel/seccomp.c, seccomp_check_filter, which lists the instructions.
"""

import operator
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Word = int | None
"""A word of 32 bits; None when it can be anything."""
INSTRUCTION = struct.Struct("=HBBI")
"""struct sock_filter: code, jump if true, jump if false, constant."""
DATA_BYTES = 64
"""struct seccomp_data: number, architecture, instruction pointer, six arguments."""
KILL, LOG, ALLOW = 0, 0x7FFC0000, 0x7FFF0000
_ACTION = 0xFFFF0000
_JUMP, _RETURN, _ALU, _OPERAND_IS_X = 5, 6, 4, 8
_ALWAYS, _DIVIDE_BY_X, _RETURN_A, _NEGATE = 0x05, 0x3C, 0x16, 0x84
_A, _X = 16, 17
"""The places of both registers in a state, behind its 16 words of memory."""

_ALU_OPERATIONS: dict[int, Callable[[int, int], int]] = {
    0x00: operator.add,
    0x10: operator.sub,
    0x20: operator.mul,
    0x30: lambda left, right: left // right if right else 0,
    0x40: operator.or_,
    0x50: operator.and_,
    0x60: lambda left, right: left << (right & 31),
    0x70: lambda left, right: left >> (right & 31),
    0xA0: operator.xor,
}
_CONDITIONS: dict[int, Callable[[int, int], bool]] = {
    0x10: operator.eq,
    0x20: operator.gt,
    0x30: operator.ge,
    0x40: lambda left, right: bool(left & right),
}
State = tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A system call, and what is known of its arguments; an argument that is None can be anything."""

    name: str
    number: int
    arguments: tuple[int | None, ...]

    def words(self, architecture: int) -> tuple[Word, ...]:
        """Returns struct seccomp_data in words, lower half first."""
        six = (*self.arguments, *([None] * (6 - len(self.arguments))))
        halves = [_half(value, shift) for value in (None, *six) for shift in (0, 32)]
        return (self.number, architecture, *halves)


def permits(program: bytes, call: Call, architecture: int) -> bool:
    """Whether the filter is sure to let the call through, logged or not; raises LookupError as `actions`."""
    return all(
        action is not None and action & _ACTION in (ALLOW, LOG) for action in actions(program, call.words(architecture))
    )


def actions(program: bytes, data: Sequence[Word]) -> set[Word]:
    """Returns all that the filter may return; raises LookupError for an instruction that no filter has."""
    found: set[Word] = set()
    states: dict[int, State] = {0: (0,) * 18}
    for place, (code, *jumps, constant) in enumerate(INSTRUCTION.iter_unpack(program)):
        state = states.pop(place, None)
        if state is None:  # nothing leads here
            continue
        operand = state[_X] if code & _OPERAND_IS_X else constant
        if code & 7 == _RETURN:
            found.add(state[_A] if code == _RETURN_A else constant)
            continue
        if code == _DIVIDE_BY_X and not operand:  # it is 0, or perhaps 0: then the filter returns 0
            found.add(KILL)
        if code & 7 == _JUMP:
            for distance in (constant,) if code == _ALWAYS else _ways(code, state[_A], operand, jumps):
                _come(states, place + 1 + distance, state)
        else:
            _come(states, place + 1, _step(state, code, constant, operand, data))
    return found | ({KILL} if states else set())


def _half(value: int | None, shift: int) -> Word:
    return None if value is None else value >> shift & 0xFFFFFFFF


def _ways(code: int, left: Word, right: Word, jumps: list[int]) -> list[int]:
    if left is None or right is None:
        return jumps
    return jumps[:1] if _CONDITIONS[code & 0xF0](left, right) else jumps[1:]


def _come(states: dict[int, State], place: int, state: State) -> None:
    """Joins two states where two ways meet: only what both agree upon is known."""
    other = states.get(place, state)
    states[place] = tuple(one if one == two else None for one, two in zip(state, other, strict=True))


def _step(state: State, code: int, constant: int, operand: Word, data: Sequence[Word]) -> State:
    match code:
        case 0x20 if constant % 4 == 0 and constant < DATA_BYTES:
            return _changed(state, _A, data[constant // 4])
        case 0x00 | 0x01:
            return _changed(state, _A + code, constant)
        case 0x80 | 0x81:
            return _changed(state, _A + (code & 1), DATA_BYTES)
        case 0x60 | 0x61 if constant < 16:
            return _changed(state, _A + (code & 1), state[constant])
        case 0x02 | 0x03 if constant < 16:
            return _changed(state, constant, state[_A + (code & 1)])
        case 0x07:
            return _changed(state, _X, state[_A])
        case 0x87:
            return _changed(state, _A, state[_X])
    if code & 7 != _ALU:
        raise LookupError(code)
    return _changed(state, _A, _alu(code, state[_A], operand))


def _alu(code: int, left: Word, right: Word) -> Word:
    if code == _NEGATE:
        return None if left is None else -left % 2**32
    operation = _ALU_OPERATIONS[code & 0xF0]
    return None if left is None or right is None else operation(left, right) % 2**32


def _changed(state: State, index: int, value: Word) -> State:
    return (*state[:index], value, *state[index + 1 :])
