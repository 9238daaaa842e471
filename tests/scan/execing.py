"""A guest that calls exec again and again: `python -m tests.scan.execing MIB leader|thread FILE`.

It holds what is equal to others' memory, compares it, appends a character to the file, and becomes itself anew, as long
as the file may be executed. With 'thread', another thread than the first one calls exec, which ends all others. Only
root may open the file.
"""

import mmap
import os
import stat
import sys
import threading
import time

from ksmtuned_py.cli.nobody import become_nobody
from tests.scan import writer
from tests.scan.contents import equal_page


def main(how: str, told: str) -> None:
    file = int(told) if told.isdecimal() else os.open(told, os.O_WRONLY | os.O_APPEND)
    os.set_inheritable(file, True)
    become_nobody()
    content = b"".join(equal_page(page % (writer.PAGES // 4)) for page in range(writer.PAGES))
    memory = mmap.mmap(-1, len(content), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = content
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    print("ready", flush=True)
    time.sleep(0.7)
    while not os.fstat(file).st_mode & stat.S_IXUSR:
        time.sleep(0.1)
    os.write(file, b"." if memory[:] == content else b"wrong")

    def again() -> None:
        os.execv(sys.executable, [sys.executable, "-m", "tests.scan.execing", sys.argv[1], how, str(file)])

    if how == "leader":
        again()
    one = threading.Thread(target=again)
    one.start()
    one.join()


if __name__ == "__main__":
    main(sys.argv[2], sys.argv[3])
