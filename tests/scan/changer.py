"""A guest for tests and the bench with unique pages, which it offers to ksmd: MIB.

A number on standard input has it write to so many of them, anywhere; the answer is the number.
"""

import mmap
import random
import sys

PAGE = mmap.PAGESIZE
chance = random.Random(7)
memory = mmap.mmap(-1, int(sys.argv[1]) << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
memory.madvise(mmap.MADV_MERGEABLE)
for offset in range(0, len(memory), PAGE):
    memory[offset : offset + PAGE] = chance.randbytes(PAGE)
print("ready", flush=True)
for line in sys.stdin:
    for page in chance.sample(range(len(memory) // PAGE), int(line)):
        at = page * PAGE + chance.randrange(PAGE - 8)
        memory[at : at + 8] = chance.randbytes(8)
    print(line.strip(), flush=True)
