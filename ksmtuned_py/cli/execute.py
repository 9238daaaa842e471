"""`ksmtuned-py exec`: starts a program whose memory may merge, although it does not ask for that itself."""

import os
import subprocess
import sys
from argparse import REMAINDER, Namespace
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_verb
from ksmtuned_py.errors import FAILED, KsmtunedError

if TYPE_CHECKING:
    from ksmtuned_py.cli.options import Subparsers

PR_SET_MEMORY_MERGE, PR_GET_MEMORY_MERGE = 67, 68  # include/uapi/linux/prctl.h
WATCHED_SECONDS = (1.0, 4.0, 25.0)
"""The times between checks that the program is still enrolled.

ksmd's first visit can end the enrolment, if it comes before the program has memory.
"""
PROBE = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).prctl({PR_GET_MEMORY_MERGE}, 0, 0, 0, 0) != 1)"


LOST = """\
ksmtuned-py: process {program} is not offered to KSM any more, although exec started it so: some kernels (6.12) lose it
when ksmd comes by before the program has any memory; or it has said no itself. Start it again, or boot a newer kernel.
"""


@dataclass(eq=False)
class NoMergeForAll(KsmtunedError):
    """The kernel cannot make all of a process's memory mergeable."""

    reason: str
    exit_code = FAILED
    template = "this kernel cannot start a program with all its memory mergeable: {reason}"
    hint_template = "it takes Linux 6.7 or newer"


@dataclass(eq=False)
class NoProgram(KsmtunedError):
    """The program cannot be started."""

    program: str
    reason: str
    template = "{program}: {reason}"


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "exec",
        run,
        "start a program with all its memory mergeable",
        "For programs that do not call madvise themselves, like firecracker: its memory, and that of the processes it "
        "starts, is offered to KSM (PR_SET_MEMORY_MERGE). From systemd 256 on, MemoryKSM=yes in a unit does that, too.",
    )
    parser.add_argument("program", nargs=REMAINDER, metavar="-- PROGRAM ...", help="the program and its arguments")


def run(args: Namespace) -> int:
    """Becomes the program; raises NoMergeForAll or NoProgram."""
    words = args.program[1:] if args.program[:1] == ["--"] else args.program
    if not words:
        raise NoProgram("exec", "wanted a program, behind --")
    _merge_all()
    _watched()
    try:
        os.execvp(words[0], words)  # noqa: S606 - to start what the admin names is the point of it
    except OSError as error:
        raise NoProgram(words[0], error.strerror or str(error)) from error


def _merge_all() -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) != 0:
        raise NoMergeForAll(os.strerror(ctypes.get_errno()))
    # Before 6.7 exec loses it without a word. A child tells, so that the kernel's version does not matter.
    if subprocess.run([sys.executable, "-I", "-S", "-c", PROBE], check=False).returncode != 0:
        raise NoMergeForAll("exec loses it")


def _watched() -> None:
    """Leaves a watcher behind, which is no child of the program. After the exec this process cannot watch any more."""
    program = os.getpid()
    with suppress(OSError):  # where there can be no fork, the program is started all the same
        descriptor = os.pidfd_open(program)
        if child := os.fork():
            os.close(descriptor)
            os.waitpid(child, 0)
            return
        if not os.fork():
            _watch(program, descriptor)
        os._exit(0)


def _watch(program: int, descriptor: int) -> None:
    """Tells when the program is not enrolled any more. It ends with the program, or after the last check."""
    import ctypes
    import select

    from ksmtuned_py.door import Door
    from ksmtuned_py.guests.enrolment import is_enrolled

    ctypes.CDLL(None).prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0)  # the watcher is no guest itself
    os.closerange(0, 2)  # the program's pipes have to end with it
    ended = select.poll()
    ended.register(descriptor, select.POLLIN)
    for seconds in WATCHED_SECONDS:
        if ended.poll(seconds * 1000):
            return
        if is_enrolled(Door(), program) is False and not ended.poll(0):
            os.write(2, LOST.format(program=program).encode())
            return
