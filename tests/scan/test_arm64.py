"""Remapping on aarch64: its machine code, and the whole of it in an emulated machine with a real kernel."""

import pytest

from ksmtuned_py.scanner.remap.processors.arm64 import (
    CALL_BYTES,
    DATA_AT,
    NR,
    SLOT_BYTES,
    Arm64Context,
    context_of,
    one_call,
)
from tests.support.emulated import run_inside

EINTR = 2**64 - 4
SVC = 0xD4000001
PC, MASK = 0x40_0000, 0xF0F
FUTEX_WAIT, FUTEX_WAKE, PRIVATE, REALTIME_CLOCK = 0, 1, 128, 256
READ, EPOLL_PWAIT, NANOSLEEP, CLOCK_NANOSLEEP = 63, 22, 101, 115
PROGRAM = "tests.scan.arm64_inside"
SECONDS = 1200.0
"""The longest time: it takes about two minutes where nothing else runs."""


@pytest.mark.emulated
@pytest.mark.timeout(SECONDS + 60)
def test_guests_are_remapped_and_survive_kills_in_an_emulated_machine() -> None:
    shown = run_inside("arm64", [PROGRAM], seconds=SECONDS).of(PROGRAM)
    print(shown)
    assert shown.endswith("OK\n")


def context(number: int, *arguments: int, at_syscall: bool = True) -> Arm64Context:
    values = [1000 + index for index in range(34)]
    values[8], values[32] = number, PC
    values[: len(arguments)] = arguments
    return Arm64Context(tuple(values), at_syscall=at_syscall)


@pytest.mark.parametrize(
    ("one", "ends_with_eintr", "may_work"),
    [
        (context(EPOLL_PWAIT), True, True),
        (context(EPOLL_PWAIT, at_syscall=False), False, True),
        (context(READ), False, True),
        (context(NR["restart_syscall"]), True, True),
        (context(NANOSLEEP), True, False),
        (context(CLOCK_NANOSLEEP, 1, 0), True, False),
        (context(CLOCK_NANOSLEEP, 1, 1), True, True),
        (context(NR["futex"], 0, FUTEX_WAIT | PRIVATE, 0, 0), True, True),
        (context(NR["futex"], 0, FUTEX_WAIT | PRIVATE, 0, 4096), True, False),
        (context(NR["futex"], 0, FUTEX_WAKE | PRIVATE, 1, 4096), False, True),
    ],
)
def test_only_a_call_that_only_waits_ends_with_eintr(one: Arm64Context, ends_with_eintr: bool, may_work: bool) -> None:
    after = one.interrupted()
    assert (after.values[0], after.pc) == ((EINTR, PC + 4) if ends_with_eintr else (one.values[0], PC))
    assert (one.suitability >= 0) is may_work


def test_a_slot_is_the_frame_that_the_kernel_restores() -> None:
    one = context(READ)
    frame = one.slot_data(MASK)
    words = [int.from_bytes(frame[at : at + 8], "little") for at in range(0, len(frame), 8)]
    assert len(frame) <= SLOT_BYTES
    assert SLOT_BYTES % 16 == 0
    assert words[168 // 8] == MASK  # offsets in struct rt_sigframe
    assert tuple(words[312 // 8 : 584 // 8]) == one.values
    assert words[592 // 8] == 0x210_46508001  # struct fpsimd_context: size and magic


def test_the_way_back_from_the_vdso_is_a_branch_that_reaches_128_mib() -> None:
    one = context(READ)
    assert one.first_data(PC + (1 << 27), MASK)[:4] == (0x14000000 | 1 << 25).to_bytes(4, "little")
    assert one.first_data(PC + (1 << 27) + 4, MASK) == b""
    assert len(one_call(PC, PC + DATA_AT)) <= DATA_AT
    assert DATA_AT + len(one.first_data(PC, MASK)) <= CALL_BYTES


@pytest.mark.parametrize(
    ("note", "content", "word"),
    [(0x405, 1 << 96, "SVE"), (0x40B, 1 << 96, "SME"), (0x40F, 1, "POE"), (0x410, 1, "GCS")],
)
def test_what_a_frame_cannot_restore_is_refused(note: int, content: int, word: str) -> None:
    def view(asked: int, size: int) -> bytes:
        return content.to_bytes(size, "little") if asked == note else bytes(size) if asked in (1, 2) else b""

    assert word in str(context_of(view, lambda *_: SVC.to_bytes(4, "little")).refusal)
