"""The guest that always writes, under a seccomp filter: `python -m tests.scan.sandboxed MIB FILTER-IN-HEX [thread]`.

With 'thread', only one thread that does nothing else has the filter.
"""

import sys
import threading

from tests.scan import writer
from tests.support.seccomp import install


def _one_thread(program: bytes, installed: threading.Event) -> None:
    install(program)
    installed.set()
    threading.Event().wait()


if __name__ == "__main__":
    program = bytes.fromhex(sys.argv[2])
    if sys.argv[3:]:
        installed = threading.Event()
        threading.Thread(target=_one_thread, args=(program, installed), daemon=True).start()
        installed.wait()
    else:
        install(program)
    writer.main()
