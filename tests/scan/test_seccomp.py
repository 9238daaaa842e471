"""A guest's seccomp filters are judged as the kernel judges them; one that forbids a call of ours is not touched."""

import errno
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtuned_py.door import Door
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.foothold.calls import CALLS, NATIVE
from ksmtuned_py.scanner.remap.foothold.permits import Permits, forbidden_by
from ksmtuned_py.scanner.remap.processors import amd64
from ksmtuned_py.scanner.remap.refuse.seccomp import ALLOW, KILL, LOG, Call, actions
from ksmtuned_py.scanner.remap.stop.stops import Stops
from ksmtuned_py.scanner.target import Target
from tests.scan.conftest import scanning, told, turn, wait_passes, wait_true
from tests.scan.test_remap import REMAP
from tests.scan.writers import MIB, Writer
from tests.support.seccomp import (
    JUMP_IF_EQUAL,
    KILL_PROCESS,
    LOAD,
    NO_SUCH_CALL,
    RETURN,
    assemble,
    only_as,
    returning,
)

ERRNO, TRAP = 0x00050000, 0x00030000
Instruction = tuple[int, int, int, int]
words = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from((0, 1, 31, 32, 2**31, 2**32 - 1)))


@st.composite
def programs(draw: Any) -> bytes:
    """Generates filters for NO_SUCH_CALL that the kernel takes; they allow all other calls."""
    begin = [(LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 1, 0, NO_SUCH_CALL), (RETURN, 0, 0, ALLOW)]
    stored = [(place, 0, 0, cell) for place in (0x02, 0x03) for cell in (place, place + 5)]
    body = draw(st.lists(instructions(), max_size=25))
    returns = [(RETURN, 0, 0, draw(results)) for _ in range(3)]
    jumps = [draw(jump(len(body) - place + 1)) if one is None else one for place, one in enumerate(body)]
    return assemble(*begin, *stored, *jumps, *returns)


results = st.one_of(st.sampled_from((ALLOW, KILL, KILL_PROCESS, TRAP)), st.integers(1, 30).map(lambda n: ERRNO | n))


def instructions() -> st.SearchStrategy[Instruction | None]:
    """Generates an instruction that is no jump; None is a jump, which depends on how many instructions follow."""
    simple = st.sampled_from((0x80, 0x81, 0x07, 0x87, 0x84, *(code | 0x0C for code in range(0, 0x80, 0x10)), 0xAC))
    cells = st.sampled_from((2, 3, 7, 8))
    return st.one_of(
        st.none(),
        simple.filter(lambda code: code != 0x8C).map(lambda code: (code, 0, 0, 0)),
        st.tuples(st.sampled_from((0x00, 0x01)), st.just(0), st.just(0), words),
        st.tuples(st.just(LOAD), st.just(0), st.just(0), st.integers(0, 15).map(lambda place: place * 4)),
        st.tuples(st.sampled_from((0x60, 0x61, 0x02, 0x03)), st.just(0), st.just(0), cells),
        st.tuples(st.sampled_from((0x04, 0x14, 0x24, 0x44, 0x54, 0xA4)), st.just(0), st.just(0), words),
        st.tuples(st.just(0x34), st.just(0), st.just(0), words.filter(bool)),
        st.tuples(st.sampled_from((0x64, 0x74)), st.just(0), st.just(0), st.integers(0, 31)),
    )


def jump(room: int) -> st.SearchStrategy[Instruction]:
    """Generates a jump over at most so many instructions."""
    always = st.tuples(st.just(0x05), st.just(0), st.just(0), st.integers(0, room))
    codes = st.sampled_from([kind | operand for kind in (0x15, 0x25, 0x35, 0x45) for operand in (0, 8)])
    return st.one_of(always, st.tuples(codes, st.integers(0, room), st.integers(0, room), words))


Kernel = Callable[[bytes, list[int]], int]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """Tells the errno with which the call ends under a filter, or, as a negative number, the signal."""
    words = [sys.executable, "-m", "tests.scan.filtered"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:

        def ask(program: bytes, arguments: list[int]) -> int:
            assert process.stdin
            assert process.stdout
            print(program.hex(), *arguments, file=process.stdin)
            return int(process.stdout.readline())

        yield ask
        process.communicate(timeout=10)


def expected(action: int | None) -> int:
    assert action is not None
    kinds = {ALLOW: errno.ENOSYS, ERRNO: action & 0xFFFF}
    return kinds.get(action & 0xFFFF0000, -signal.SIGSYS)


arguments = st.lists(st.tuples(words, words).map(lambda two: two[0] << 32 | two[1]), min_size=6, max_size=6)


@settings(max_examples=200, deadline=None)
@given(programs(), arguments)
def test_a_filter_is_run_as_the_kernel_runs_it(kernel: Kernel, program: bytes, given: list[int]) -> None:
    found = actions(program, Call("", NO_SUCH_CALL, tuple(given)).words(NATIVE))
    done = kernel(program, given)
    assert None in found or done in map(expected, found)


@settings(max_examples=300, deadline=None)
@given(programs(), arguments, st.lists(st.booleans(), min_size=6, max_size=6))
def test_what_is_not_known_beforehand_is_among_what_may_be_returned(
    program: bytes, given: list[int], known: list[bool]
) -> None:
    exact = actions(program, tuple(word or 0 for word in Call("", NO_SUCH_CALL, tuple(given)).words(NATIVE)))
    partly = tuple(value if keep else None for value, keep in zip(given, known, strict=True))
    found = actions(program, Call("", NO_SUCH_CALL, partly).words(NATIVE))
    assert exact <= found or None in found


def test_every_call_of_ours_is_judged() -> None:
    assert {call.name for call in CALLS} == set(amd64.NR)


@pytest.mark.parametrize("name", sorted(amd64.NR))
def test_a_forbidden_call_is_named(name: str) -> None:
    assert forbidden_by(returning(KILL_PROCESS, [amd64.NR[name]])) == {name}
    assert forbidden_by(returning(ERRNO | 1, [amd64.NR[name]])) == {name}
    assert forbidden_by(returning(LOG, [amd64.NR[name]])) == set()


def test_filters_that_look_at_arguments_forbid_only_what_we_need() -> None:
    executable = (LOAD, 0, 0, 32), (0x45, 0, 1, 4), (RETURN, 0, 0, KILL), (RETURN, 0, 0, ALLOW)
    begin = (LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 1, 0, amd64.NR["mprotect"]), (RETURN, 0, 0, ALLOW)
    assert forbidden_by(assemble(*begin, *executable)) == set()  # it forbids mprotect with PROT_EXEC
    address = (LOAD, 0, 0, 16), (0x45, 0, 1, 0x1000), (RETURN, 0, 0, KILL), (RETURN, 0, 0, ALLOW)
    assert forbidden_by(assemble(*begin, *address)) == {"mprotect"}  # of some addresses
    assert forbidden_by(assemble((0xFF, 0, 0, 0))) == set(amd64.NR)
    assert forbidden_by(only_as(CALLS)) == set()


class Sandboxed(Writer):
    """Starts a guest that always writes, under a filter."""

    def __init__(self, program: bytes, *more: str) -> None:
        super().__init__(
            "writer-s", command=(sys.executable, "-m", "tests.scan.sandboxed", str(MIB), program.hex(), *more)
        )


EXACT = ("socketpair", "recvmsg", "recvfrom", "sendto", "rt_sigpending", "mincore", "pread64", "restart_syscall")
"""Calls of ours that a resting Python does not need for itself."""


def test_a_guest_that_may_call_what_we_need_and_only_so_is_remapped(root: None, no_ksm: Door) -> None:
    program = only_as(call for call in CALLS if call.name in EXACT)
    with Sandboxed(program) as guest, scanning(no_ksm, REMAP, [guest]) as backend:
        wait_true(lambda: backend.counters().pages_sharing > 250, "shared pages")
        assert guest.check()["wrong"] == 0
        turn(backend, "run", 2)
        wait_true(lambda: backend.counters().pages_sharing == 0, "pages given back")
        assert guest.check()["wrong"] == 0


@pytest.mark.parametrize("more", [(), ("thread",)])
def test_a_guest_with_a_filter_that_forbids_a_call_is_left_alone(
    root: None, no_ksm: Door, more: tuple[str, ...]
) -> None:
    program = returning(KILL_PROCESS, [amd64.NR["mincore"]])
    with Sandboxed(program, *more) as guest:
        with (
            Process(Target(pid=guest.pid, start_ticks=0), Door()) as process,
            pytest.raises(Refused, match="its seccomp filter forbids mincore"),
        ):
            Permits.of(process, Stops(0.05))
        with scanning(no_ksm, REMAP, [guest]) as backend:
            wait_true(lambda: told(backend, "writer-s: its seccomp filter forbids mincore"), "reason")
            wait_passes(backend, 4)
            assert backend.counters().pages_sharing == 0
        assert guest.check()["wrong"] == 0
