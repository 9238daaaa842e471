"""Runs modules in an emulated machine, one after the other, each between two marks on the console.

`python -m tests.support.programs PROGRAM BEGUN ENDED ...` takes each program as for `python -m`. All of them are forks
of one process that has imported what they import: imports are most of what a short program takes there.
"""

import os
import runpy
import sys
import traceback
from importlib import import_module
from pathlib import Path

KSM = Path("/sys/kernel/mm/ksm/run")


def main(words: list[str]) -> None:
    """Run them all. After each nothing is merged any more, not even by ended processes."""
    programs = list(zip(words[::3], words[1::3], words[2::3], strict=True))
    for program, _, _ in programs:
        import_module(program.split()[0])
    for program, begun, ended in programs:
        print(begun, flush=True)
        print(f"{ended}{exit_code(program.split())}", flush=True)
        for run in "20":
            if KSM.exists():
                KSM.write_text(run)


def exit_code(words: list[str]) -> int:
    """Runs a program to its end in a process of its own, and returns how it ended."""
    pid = os.fork()
    if not pid:
        os._exit(run(words))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(words: list[str]) -> int:
    """Becomes the program; returns its exit code, once all is printed."""
    sys.argv = words
    del sys.modules[words[0]]  # it runs as __main__
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except BaseException:  # whatever the error was, this process must not go on as its parent
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    main(sys.argv[1:])
