"""A guest whose first thread ends when it is told to; another goes on: `python -m tests.scan.leaderless MIB`.

The line 'end' on standard input ends that thread; 'check' is answered as by the guest that always writes.
"""

import ctypes
import os
import sys
import threading

from ksmtuned_py.cli.nobody import become_nobody
from tests.scan import writer

EXIT = {"x86_64": 60, "aarch64": 93}
_libc = ctypes.CDLL(None)
_over = threading.Event()


def _end() -> str:
    _over.set()
    return "ending"


def _serve() -> None:
    for line in sys.stdin:
        print(writer.COMMANDS[line.strip()](), flush=True)


if __name__ == "__main__":
    writer.COMMANDS["end"] = _end
    become_nobody()
    writer.fill()
    threading.Thread(target=_serve).start()
    print("ready", flush=True)
    _over.wait()
    _libc.syscall(EXIT[os.uname().machine], 0)
