"""A guest whose threads do what is hard to stop or to move: `python -m tests.scan.lively MIB WHAT ...`.

The line 'seen' asks for how often each thing was done, and what came of it that must not; 'check' compares every byte.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.scan import writer
from tests.scan.contents import equal_page
from tests.scan.interrupted import CALLS
from tests.scan.oddcalls import ODD, resting_handler

PAGE = mmap.PAGESIZE
CLONE_VM, CLONE_NEWUSER = 0x100, 0x10000000
SIGNAL, ON_STACK = signal.SIGRTMAX, 0x08000000
MCL_FUTURE, MCL_ONFAULT = 2, 4
USERFAULTFD, UFFDIO_API, UFFDIO_REGISTER = {"x86_64": 323, "aarch64": 282}, 0xC018AA3F, 0xC020AA00
MAP_HUGETLB = 0x40000
MANY = 8 << 20
RESTING = {"fork", "vfork", "x32"}
"""What is done at a set rate, because at full speed one guest would take a whole processor."""
seen: Counter[str] = Counter()
wrong: Counter[str] = Counter()
stacks: list[object] = []
opened: list[int] = []
_libc = ctypes.CDLL(None, use_errno=True)
_exit = ctypes.cast(_libc._exit, ctypes.c_void_p)


def note(name: str, *, right: bool, what: object = "") -> None:
    seen[name] += 1
    if not right:
        wrong[f"{name}:{what}"] += 1


def forever(name: str, work: Callable[[], object]) -> None:
    """Does something over and over again in a thread that no other signal reaches; it says what is wrong."""

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - {SIGNAL})
        while True:
            found = work()
            note(name, right=not found, what=found)
            if name in RESTING:
                time.sleep(writer.IDLE_SECONDS)

    threading.Thread(target=run, daemon=True).start()


# What other processes and threads are begun for.


def fork() -> object:
    """Forks; the child compares some pages with what must be there."""
    with writer.pause:
        pid = os.fork()
        if not pid:
            pages = range(0, writer.PAGES, 97)
            os._exit(any(map(writer.is_wrong, pages)))
    return os.waitpid(pid, 0)[1]


def vfork() -> object:
    """Has a child exec a program, in between with our memory: posix_spawn is vfork."""
    return os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1]


def clone() -> object:
    """Has a child with our memory and without being a thread of ours, for some milliseconds."""
    stack = ctypes.create_string_buffer(1 << 16)
    top = (ctypes.addressof(stack) + len(stack) - 64) & ~15
    pid = _libc.clone(_exit, ctypes.c_void_p(top), CLONE_VM | signal.SIGCHLD, ctypes.c_void_p(0))
    time.sleep(0.05)
    return pid < 0 or os.waitpid(pid, 0)[1]


def thread() -> object:
    """Begins threads that end at once."""
    some = [threading.Thread(target=time.sleep, args=(0.0005,)) for _ in range(8)]
    for one in some:
        one.start()
    for one in some:
        one.join()
    return None


# Mappings that change all the time.


def churn() -> object:
    """Maps, moves, cuts, throws away and writes again what is equal to others' memory."""
    content = equal_pages()
    memory = mmap.mmap(-1, MANY, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = content
    time.sleep(0.3)
    if memory[:] != content:
        return "mapped"
    memory.madvise(mmap.MADV_DONTNEED, MANY // 2, MANY // 4)
    memory[MANY // 2 : MANY // 4 * 3] = content[: MANY // 4]
    memory = grown(memory)
    if memory[:MANY] != content:
        return "moved"
    memory[MANY:] = content
    time.sleep(0.2)
    memory.resize(MANY // 2)
    if memory[:] != content[: MANY // 2]:
        return "cut"
    memory.close()
    return None


def grown(memory: mmap.mmap) -> mmap.mmap:
    """Makes it twice as large; what has become several mappings by being merged is copied, as realloc does it."""
    try:
        memory.resize(2 * len(memory))
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        larger = mmap.mmap(-1, 2 * len(memory), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        larger[: len(memory)] = memory[:]
        memory.close()
        return larger
    return memory


# Odd states of threads.


def on_another_stack() -> object:
    """Is in a handler on an alternate signal stack nearly all the time."""
    if not stacks:
        stack = ctypes.create_string_buffer(1 << 16)
        done = _libc.sigaltstack(struct.pack("=QiiQ", ctypes.addressof(stack), 0, 0, len(stack)), None)
        assert not done, os.strerror(ctypes.get_errno())
        action = struct.pack("=Q128sixxxxQ", resting_handler(), b"", ON_STACK, 0)
        assert not _libc.sigaction(SIGNAL, action, None), os.strerror(ctypes.get_errno())
        stacks.append(stack)
    signal.raise_signal(SIGNAL)
    return None


# Limits and rights; each is set once, before the guest says that it is ready.


LIMITS = (("AS", 0), ("NOFILE", 0), ("NOFILE", 2), ("MEMLOCK", 0))


def limit(name: str, more: int) -> str:
    """Leaves so much more of a resource than it has now; of address space in MiB."""
    pages, opened_now = int(Path("/proc/self/statm").read_text().split()[0]), len(list(Path("/proc/self/fd").iterdir()))
    used = {"AS": pages * PAGE, "NOFILE": opened_now - 1}.get(name, 0)
    most = used + (more << 20 if name == "AS" else more)
    number = getattr(resource, f"RLIMIT_{name}")
    resource.setrlimit(number, (most, most))
    return "limited"


def future_locked(*, on_fault: bool) -> str:
    flags = MCL_FUTURE | (MCL_ONFAULT if on_fault else 0)
    assert not _libc.mlockall(flags), os.strerror(ctypes.get_errno())
    return "locked"


THREADS: dict[str, Callable[[], object]] = {
    "fork": fork, "vfork": vfork, "clone": clone, "thread": thread, "churn": churn, "stack": on_another_stack,
    **CALLS, **ODD,
}  # fmt: skip


def tell() -> str:
    done = " ".join(f"{name}={count}" for name, count in sorted(seen.items()))
    return f"{done or 'nothing'} wrong={'+'.join(sorted(wrong)) or 'none'}"


def watched(descriptor: int, value: str) -> None:
    """Has missing pages of its memory handled by userfaultfd, through a descriptor that is open here or in a child."""
    begin = ctypes.addressof(ctypes.c_char.from_buffer(writer.memory))
    fcntl.ioctl(descriptor, UFFDIO_API, struct.pack("=QQQ", 0xAA, 0, 0))
    fcntl.ioctl(descriptor, UFFDIO_REGISTER, struct.pack("=QQQQ", begin, len(writer.memory), 1, 0))
    if value == "elsewhere":
        if not os.fork():
            _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
            while True:
                time.sleep(60)
        os.close(descriptor)


def key() -> None:
    """Gets a protection key, as pkeys(7) tells. Threads that are begun from now on may use what has it."""
    opened.append(_libc.pkey_alloc(0, 0))
    assert opened[0] > 0, os.strerror(ctypes.get_errno())


def keyed() -> str:
    """Gives the last half of its memory the protection key."""
    size = len(writer.memory) // 2
    begin = ctypes.addressof(ctypes.c_char.from_buffer(writer.memory)) + len(writer.memory) - size
    done = _libc.pkey_mprotect(ctypes.c_void_p(begin), ctypes.c_size_t(size), 3, opened[0])
    assert not done, os.strerror(ctypes.get_errno())
    return f"{begin} {size} {opened[0]}"


def huge() -> None:
    """Fills pages of hugetlbfs with what is equal to others' memory, and compares them all the time."""
    memory = mmap.mmap(-1, MANY, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB)
    content = equal_pages()
    memory[:] = content

    def compare() -> object:
        time.sleep(0.05)
        return memory[:] != content

    forever("huge", compare)


def call_itself(name: str) -> None:
    _libc.prctl(15, name.encode())  # PR_SET_NAME, of this thread
    time.sleep(600)


def equal_pages() -> bytes:
    return b"".join(equal_page(number) for number in range(64)) * (MANY // 64 // PAGE)


def as_root(words: list[str]) -> None:
    """Sets what only root may, before the guest gives up root's rights."""
    if "watched=open" in words or "watched=elsewhere" in words:
        opened.append(_libc.syscall(USERFAULTFD[os.uname().machine], os.O_CLOEXEC | os.O_NONBLOCK))
    for name, value in (word.split("=") for word in words if "=" in word):
        if name == "jailed":
            os.chroot(value)
        if name == "dumping":
            os.chdir(value)
            resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
        if name == "locked":
            threading.stack_size(1 << 18)  # stacks are locked as well, whatever of them is used
            most = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))


def lock(value: str) -> None:
    if value != "later":
        future_locked(on_fault=value == "on-fault")


def give_key(value: str) -> None:
    key()
    if value != "later":
        keyed()


def be_dumped(_: str) -> None:
    assert not _libc.prctl(4, 1)  # PR_SET_DUMPABLE, which becoming nobody has taken away
    writer.stop.set()


def be_root_of_a_namespace(_: str) -> None:
    assert not _libc.unshare(CLONE_NEWUSER), os.strerror(ctypes.get_errno())


SETUPS: dict[str, Callable[[str], object]] = {
    "locked": lock,
    "watched": lambda value: watched(opened[0], value),
    "huge": lambda _: huge(),
    "keyed": give_key,
    "dumping": be_dumped,
    "named": lambda value: threading.Thread(target=call_itself, args=(value,), daemon=True).start(),
    "rooted": be_root_of_a_namespace,
}


def begin(words: list[str]) -> None:
    """Does what the words say, in a guest whose memory is filled and that has given up root's rights."""
    for name, _, value in (word.partition("=") for word in words):
        if name in THREADS:
            forever(name, THREADS[name])
        elif name in SETUPS:
            SETUPS[name](value)


if __name__ == "__main__":
    writer.COMMANDS |= {"seen": tell, "lock": lambda: future_locked(on_fault=True), "key": keyed}
    writer.COMMANDS |= {f"{name}={more}": partial(limit, name, more) for name, more in LIMITS}
    as_root(sys.argv[2:])
    writer.main(lambda: begin(sys.argv[2:]))
