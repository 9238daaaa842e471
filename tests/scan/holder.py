"""A guest for tests that holds pages of zeros and offers nothing to ksmd: MIB, then any arguments.

`locked=KIB` locks so much in the middle of them. Each line on standard input has it compare every byte; the answer is
the number of pages that are not zero.
"""

import ctypes
import mmap
import sys

PAGE = mmap.PAGESIZE
memory = mmap.mmap(-1, int(sys.argv[1]) << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for offset in range(0, len(memory), PAGE):
    memory[offset] = 0
for word in sys.argv[2:]:
    if word.startswith("locked="):
        size = int(word.removeprefix("locked=")) << 10
        middle = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + (len(memory) - size) // 2 // PAGE * PAGE
        assert ctypes.CDLL(None).mlock(ctypes.c_void_p(middle), ctypes.c_size_t(size)) == 0
print("ready", flush=True)
for _ in sys.stdin:
    print(sum(memory[at : at + PAGE] != bytes(PAGE) for at in range(0, len(memory), PAGE)), flush=True)
