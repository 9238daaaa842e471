"""A guest that always writes, for tests: threads that write to random pages all the time, and know what must be there.

Most of its pages are equal, to each other in part and to those of every other such process. Lines on standard input:
'check' compares every byte; the answer is 'wrong N writes M beats B'.
"""

import mmap
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable

from ksmtuned_py.cli.nobody import become_nobody
from tests.scan.contents import PAGE, equal_page

PAGES = int(sys.argv[1]) * 256
THREADS = 3
IDLE_SECONDS = float(os.environ.get("WRITER_IDLE_SECONDS", "0.01"))
"""The pause after every second write. With less, pages change so often that hardly any two in a row merge."""
EQUAL_OF_64 = int(os.environ.get("WRITER_EQUAL_OF_64", "48"))
"""How many of 64 pages in a row are equal to others."""
memory = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
if "WRITER_IN_HUGE_PAGES" in os.environ:
    memory.madvise(mmap.MADV_HUGEPAGE)
expected: list[int] = []
"""The hash of each page. Python's own for bytes takes all of them in, and has a key of this process."""
writes = [0] * THREADS
beats: list[int] = []
stop = threading.Event()
pause = threading.Lock()


def fill() -> None:
    for page in range(PAGES):
        content = equal_page(page % (PAGES // 4)) if page % 64 < EQUAL_OF_64 else os.urandom(PAGE)
        memory[page * PAGE : (page + 1) * PAGE] = content
        expected.append(hash(content))


def write(thread: int) -> None:
    """Writes all the time: each thread owns every third page, and notes at once what it writes."""
    chance = random.Random(thread)
    while not stop.is_set():
        page = chance.randrange(PAGES // THREADS) * THREADS + thread
        begin = page * PAGE
        with pause:
            if chance.random() < 0.3:  # this makes the page equal again, so that it is merged again
                content = equal_page(page % (PAGES // 4))
                memory[begin : begin + PAGE] = content
            else:
                at = begin + chance.randrange(PAGE - 8)
                memory[at : at + 8] = chance.randbytes(8)
                content = memory[begin : begin + PAGE]
            expected[page] = hash(content)
            writes[thread] += 1
        if writes[thread] % 2 == 0:
            time.sleep(IDLE_SECONDS)


def beat(*_: object) -> None:
    beats.append(1)


def is_wrong(page: int) -> bool:
    return hash(memory[page * PAGE : (page + 1) * PAGE]) != expected[page]


def check() -> str:
    with pause:
        wrong = sum(is_wrong(page) for page in range(PAGES))
        return f"wrong {wrong} writes {sum(writes)} beats {len(beats)}"


COMMANDS: dict[str, Callable[[], str]] = {"check": check}


def main(prepare: Callable[[], None] = lambda: None) -> None:
    become_nobody()
    fill()
    prepare()
    signal.signal(signal.SIGALRM, beat)
    signal.setitimer(signal.ITIMER_REAL, IDLE_SECONDS, IDLE_SECONDS)  # it interrupts system calls all the time
    for thread in range(THREADS):
        threading.Thread(target=write, args=(thread,), daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        print(COMMANDS[line.strip()](), flush=True)
    stop.set()


if __name__ == "__main__":
    main()
