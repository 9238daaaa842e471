"""Guests of the bench: workload processes that everybody who goes by names takes for QEMU."""

import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from subprocess import PIPE, Popen

from ksmtuned_py.cli.workload import Mix, Workload, command
from tests.support.debian import CACHE

ROOT = Path(__file__).parent.parent
QEMU = "qemu-system-x86_64"
COMM = QEMU[:15]  # TASK_COMM_LEN, linux/sched.h


class Guest(Workload):
    """A workload process in QEMU's clothes."""

    def __init__(self, name: str, mix: Mix) -> None:
        self.name = name
        self.mix = mix
        self._process = as_qemu(command(name, mix, COMM)[1:])


def as_qemu(arguments: Sequence[str]) -> Popen[bytes]:
    """Starts Python with these arguments, named as QEMU from its first moment on.

    Managers look for the process name (a link to Python has it at exec), or, like Debian's ksmtuned, for the command
    line `^qemu-system.*-enable-kvm`. Python takes any word after -X, and ignores those it does not know. It is not the
    virtual environment's Python, but a workload needs the standard library only.
    """
    link = under_qemus_name(Path(sys.executable).resolve())
    paths = {"PATH": f"{link.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    words = [QEMU, "-X", "-enable-kvm", *arguments]
    return Popen(words, executable=link, env={**os.environ, **paths}, stdin=PIPE, stdout=PIPE)


@cache
def under_qemus_name(program: Path) -> Path:
    """Returns a link to the program that is called like QEMU."""
    link = CACHE / "bench" / program.name / QEMU
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(program)
    return link
