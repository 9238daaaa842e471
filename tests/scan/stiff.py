"""A guest (x86-64) whose vdso cannot be executed, and that needs it for nothing: `python -m tests.scan.stiff MIB`.

Once it has said where its memory is, Python runs no more in it. It sleeps for ever in code of its own.
"""

import ctypes
import mmap
import sys
from pathlib import Path

from ksmtuned_py.cli.nobody import become_nobody
from tests.scan import writer
from tests.scan.interrupted import libc
from tests.scan.oddcalls import machine, sleeping_code

if __name__ == "__main__":
    become_nobody()
    writer.fill()
    lines = Path("/proc/self/maps").read_text().splitlines()
    start, end = next(line.split()[0].split("-") for line in lines if line.endswith("[vdso]"))
    begin, size = ctypes.c_void_p(int(start, 16)), ctypes.c_size_t(int(end, 16) - int(start, 16))
    code = machine(sleeping_code(), (1000).to_bytes(8, "little") + bytes(8))
    print("ready", flush=True)
    print(ctypes.addressof(ctypes.c_char.from_buffer(writer.memory)), flush=True)
    assert not libc.mprotect(begin, size, mmap.PROT_READ)
    ctypes.CFUNCTYPE(None, ctypes.c_ulong)(code)(code + 512)
    sys.exit(1)
