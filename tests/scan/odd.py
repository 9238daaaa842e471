"""A guest that always writes, and tries what a hostile or unusual one would: `python -m tests.scan.odd MIB WHAT`."""

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from ksmtuned_py.scanner.remap.foothold.area import AREA_BYTES, AREA_NAME, CODE_BYTES, NOTES
from tests.scan import writer

AF_XDP = 44
SYSCALL_USER_DISPATCH, ON, BLOCK = 59, 1, 1
CLONE_FILES, CLONE_VFORK, CLONE_NEWUSER = 0x400, 0x4000, 0x10000000
MADV_REMOVE = 9
KVM_CREATE_VM = 0xAE01
SET_DUMPABLE, SET_MDWE = 4, 65
EVIL = b"\x1b[31m\xff\nno guest: \xe2\x80\xae"
"""Part of a file's name that steers a terminal, is no UTF-8, ends a line, and turns the direction of writing."""
_libc = ctypes.CDLL(None, use_errno=True)
_pause, _usleep = (ctypes.cast(function, ctypes.c_void_p) for function in (_libc.pause, _libc.usleep))


def spoil() -> str:
    """Writes to every memfd of merged pages it has open, in every way there is; says by which it could."""
    ways: dict[str, Callable[[int], object]] = {
        "pwrite": lambda fd: os.pwrite(fd, b"spoiled", 0),
        "map": lambda fd: mmap.mmap(fd, mmap.PAGESIZE, flags=mmap.MAP_SHARED).write(b"spoiled"),
        "reopen": lambda fd: os.pwrite(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), b"spoiled", 0),
        "chmod": lambda fd: os.fchmod(fd, 0o777),
        "flags": lambda fd: (fcntl.fcntl(fd, fcntl.F_SETFL, os.O_RDWR), os.pwrite(fd, b"spoiled", 0)),
        "seals": lambda fd: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
        "attribute": lambda fd: os.setxattr(fd, "user.spoiled", b"1"),
        "mapped": lambda _: os.pwrite(os.open(_mapped_file(), os.O_RDWR), b"spoiled", 0),
        "namespace": _as_root_of_a_namespace,
        "remove": _remove,
        "memory file": _write_past_protection,
        "truncate": lambda fd: os.ftruncate(fd, 0),
        "punch": _punch,
    }
    there = [int(path.name) for path in Path("/proc/self/fd").iterdir() if _is_of_merged_pages(path)]
    able = []
    for name, way in ways.items():
        for descriptor in there:
            with suppress(OSError):
                way(descriptor)
                able.append(name)
    return f"open {len(there)} able {'+'.join(able) or 'none'}"


def _is_of_merged_pages(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return "ksmtuned-py-pages" in str(path.readlink())
    return False


def _mapping() -> tuple[int, int]:
    """Returns where merged pages are mapped."""
    start, end = next(line.split()[0] for line in _maps() if "ksmtuned-py-pages" in line).split("-")
    return int(start, 16), int(end, 16)


def _mapped_file() -> str:
    start, end = _mapping()
    return f"/proc/self/map_files/{start:x}-{end:x}"


def _remove(_: int) -> None:
    """Tries to remove the pages from the file below (MADV_REMOVE)."""
    start, _end = _mapping()
    if _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(mmap.PAGESIZE), MADV_REMOVE):
        raise OSError(ctypes.get_errno(), "madvise")


def _write_past_protection(descriptor: int) -> None:
    """Writes as a debugger does, to what is mapped for reading alone."""
    _libc.prctl(SET_DUMPABLE, 1, 0, 0, 0)
    with mmap.mmap(descriptor, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ):
        line = next(line for line in _maps() if " r--s " in line and "ksmtuned-py-pages" in line)
        os.pwrite(os.open("/proc/self/mem", os.O_RDWR), b"spoiled", int(line.split("-")[0], 16))


def _maps() -> list[str]:
    return Path("/proc/self/maps").read_text().splitlines()


def _as_root_of_a_namespace(descriptor: int) -> None:
    """Opens it anew in a child with all capabilities over what belongs to its own user namespace."""
    pid = os.fork()
    if not pid:
        with suppress(OSError):
            _libc.unshare(CLONE_NEWUSER)
            os.pwrite(os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR), b"spoiled", 0)
            os._exit(0)
        os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise OSError(errno.EACCES, "open")


def _punch(descriptor: int) -> None:
    if _libc.fallocate(descriptor, 3, ctypes.c_int64(0), ctypes.c_int64(mmap.PAGESIZE)):
        raise OSError(ctypes.get_errno(), "fallocate")


def few_descriptors() -> None:
    """Leaves two descriptors that can be opened, and no third one."""
    os.closerange(3, 256)
    resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))


def xdp() -> None:
    """Opens a socket as a network backend of QEMU has it: opened with rights that are given up then."""
    kept.append(socket.socket(AF_XDP, socket.SOCK_RAW))


def device(path: str) -> None:
    """Makes a device node somewhere, whatever it is called."""
    kept.append(os.open(path, os.O_RDONLY))


def kvm(*_: str) -> None:
    """Has a virtual machine of KVM; where there is no KVM, something of that name stands for it."""
    try:
        kept.append(fcntl.ioctl(os.open("/dev/kvm", os.O_RDWR), KVM_CREATE_VM, 0))
    except OSError:
        kept.append(os.memfd_create("kvm-vm"))


def dispatching() -> None:
    """Has its first thread's system calls that do not come from below the vdso go to a handler of its own."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    vdso = next(int(line.split("-")[0], 16) for line in lines if line.endswith("[vdso]"))
    selector = ctypes.c_ubyte(BLOCK)
    kept.append(selector)
    done = _libc.prctl(
        SYSCALL_USER_DISPATCH, ON, ctypes.c_ulong(0), ctypes.c_ulong(vdso), ctypes.c_void_p(ctypes.addressof(selector))
    )
    assert not done, os.strerror(ctypes.get_errno())


def named(path: str) -> None:
    """Has a file open that is no memory, with a name that steers terminals, forges a line, and is no UTF-8."""
    socket.socket(socket.AF_UNIX).bind(path.encode() + EVIL)
    kept.append(os.open(path.encode() + EVIL, os.O_PATH))


def mapped(path: str) -> None:
    """Maps a file in whose name Python sees the end of a line, and then something else that is mapped."""
    name = Path(f"{path}\x0c/memfd:ksmtuned-py-pages\x0c")
    name.parent.mkdir()
    name.write_bytes(bytes(mmap.PAGESIZE))
    with name.open() as file:
        kept.append(mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ))


def many_files() -> None:
    """Has more files open than can be looked at in a stop."""
    kept.extend(os.dup(0) for _ in range(2000))


def many_areas() -> None:
    """Seems to have been merged by very many workers, each of which has left memory to be taken away."""
    for _ in range(400):
        descriptor = os.memfd_create(AREA_NAME)
        os.ftruncate(descriptor, AREA_BYTES)
        area = mmap.mmap(descriptor, AREA_BYTES)
        os.close(descriptor)
        struct.pack_into("=QQ", area, CODE_BYTES + NOTES + 8, 1 << 20, mmap.PAGESIZE)
        assert not _libc.mprotect(_address(area), ctypes.c_size_t(CODE_BYTES), mmap.PROT_READ)
        kept.append(area)


def never_code() -> None:
    """Wants never to have memory that can be executed and was written to (systemd's MemoryDenyWriteExecute)."""
    assert not _libc.prctl(SET_MDWE, 1, 0, 0, 0), os.strerror(ctypes.get_errno())


def unshared() -> None:
    """Has a thread whose table of open files is a copy, and which sleeps."""
    ready = threading.Event()

    def sleep() -> None:
        assert not _libc.unshare(CLONE_FILES), os.strerror(ctypes.get_errno())
        ready.set()
        threading.Event().wait()

    threading.Thread(target=sleep, daemon=True).start()
    assert ready.wait(60)


def forbid() -> str:
    """Forbids itself to run what lies in our area."""
    begin, end = next(line.split()[0] for line in _maps() if f" /memfd:{AREA_NAME}" in line).split("-")
    size = int(end, 16) - int(begin, 16)
    return str(_libc.mprotect(ctypes.c_void_p(int(begin, 16)), ctypes.c_size_t(size), 0))


def _address(memory: mmap.mmap) -> ctypes.c_void_p:
    return ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)))


def lock() -> str:
    """Locks the last of the memory it merges, as much as anybody may."""
    size = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] // 2
    address = ctypes.addressof(ctypes.c_char.from_buffer(writer.memory)) + len(writer.memory) - size
    done = _libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(size))
    return f"{address} {size} {os.strerror(ctypes.get_errno()) if done else 'locked'}"


def wait() -> str:
    """Has a thread wait in the kernel, where it cannot be stopped, until a child of it has ended."""
    threading.Thread(target=_clone, args=(_pause, 0), daemon=True).start()
    return "waiting"


def wait_often() -> str:
    """Has a thread wait in the kernel for 83 ms at a time, all the time, as one does whose disk is slow."""

    def work() -> None:
        while True:
            os.waitpid(_clone(_usleep, 83_000), 0)

    threading.Thread(target=work, daemon=True).start()
    return "waiting"


def _clone(function: ctypes.c_void_p, argument: int) -> int:
    """Runs only that function in a child with memory of its own; returns when the child has ended."""
    stack = ctypes.create_string_buffer(1 << 16)
    top = (ctypes.addressof(stack) + len(stack) - 64) & ~15
    pid: int = _libc.clone(function, ctypes.c_void_p(top), CLONE_VFORK | signal.SIGCHLD, ctypes.c_void_p(argument))
    return pid


kept: list[object] = []
SETUPS: dict[str, Callable[..., None]] = {
    "few": few_descriptors,
    "xdp": xdp,
    "device": device,
    "kvm": kvm,
    "dispatching": dispatching,
    "named": named,
    "mapped": mapped,
    "files": many_files,
    "areas": many_areas,
    "mdwe": never_code,
    "unshared": unshared,
}
COMMANDS: dict[str, Callable[[], str]] = {
    "spoil": spoil,
    "lock": lock,
    "forbid": forbid,
    "wait": wait,
    "wait often": wait_often,
}

if __name__ == "__main__":
    what, *arguments = sys.argv[2:] or ["plain"]
    if what in SETUPS:
        partial(SETUPS[what], *arguments)()
    writer.COMMANDS.update(COMMANDS)
    writer.main()
