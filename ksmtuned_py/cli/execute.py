"""`ksmtuned-py exec`: start a program whose memory may merge, although it does not ask for that itself."""

import os
import subprocess
import sys
from argparse import REMAINDER, Namespace
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_verb
from ksmtuned_py.errors import FAILED, KsmtunedError

if TYPE_CHECKING:
    from ksmtuned_py.cli.options import Subparsers

PR_SET_MEMORY_MERGE, PR_GET_MEMORY_MERGE = 67, 68  # include/uapi/linux/prctl.h
PROBE = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).prctl({PR_GET_MEMORY_MERGE}, 0, 0, 0, 0) != 1)"


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
    try:
        os.execvp(words[0], words)  # noqa: S606 - to start what the admin names is the point of it
    except OSError as error:
        raise NoProgram(words[0], error.strerror or str(error)) from error


def _merge_all() -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) != 0:
        raise NoMergeForAll(os.strerror(ctypes.get_errno()))
    # Before 6.7 exec loses it without a word: asked of a child rather than of the kernel's version.
    if subprocess.run([sys.executable, "-I", "-S", "-c", PROBE], check=False).returncode != 0:
        raise NoMergeForAll("exec loses it")
